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
declare
    v_ids text [];
    v_keys bigint [];
begin
    select array_agg(s.id order by s.id collate "C"), array_agg(s.subscription_key order by s.id collate "C") into v_ids, v_keys
    from (
        select s.id, s.subscription_key from fastpubsub.subscriptions as s
        where s.topic_key = p_topic_key and (p_ids is null or s.id = any(p_ids))
        order by s.id collate "C"
        offset p_offset
        limit p_limit
    ) as s;
    for i in 1..coalesce(cardinality(v_ids), 0) loop
        return query select v_ids[i], e.* from fastpubsub.explain_message_2(p_topic_key, v_keys[i], p_position, 1000) as e;
    end loop;
end;
$$;
