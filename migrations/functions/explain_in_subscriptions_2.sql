-- explain_message_2 for the subscriptions of the topic, ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.explain_in_subscriptions_2(
    p_topic_key bigint,
    p_position bigint,
    p_ids text [],
    p_offset bigint,
    p_limit integer
) returns table (
    subscription_id text,
    state text,
    attempts integer,
    consumer_id text,
    until timestamptz,
    died_at timestamptz,
    reason text,
    before bigint,
    before_is_estimated boolean,
    filter json,
    field text,
    expected json,
    actual json,
    actual_bytes integer,
    similar_field text,
    is_readable boolean,
    sought_at timestamptz,
    paused_at timestamptz,
    leased_at timestamptz,
    is_put_aside boolean,
    at_limit integer,
    at_rate_limit double precision,
    failures json,
    expired_at timestamptz,
    held_by text,
    may_be_dropped boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.id, e.*
    from (
        select s.id, s.subscription_key from fastpubsub.subscriptions as s
        where s.topic_key = p_topic_key and (p_ids is null or s.id = any(p_ids))
        order by s.id collate "C"
        offset p_offset
        limit p_limit
    ) as s
    cross join lateral fastpubsub.explain_message_2(p_topic_key, s.subscription_key, p_position, 1000) as e
    order by s.id collate "C";
end;
$$;
