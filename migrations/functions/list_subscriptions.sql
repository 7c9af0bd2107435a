-- Ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.list_subscriptions(p_offset bigint, p_limit integer, p_ids text[] default null)
returns table (
    id text,
    topic_id text,
    filter json,
    ack_deadline_seconds integer,
    max_delivery_attempts integer,
    backoff_min_seconds integer,
    backoff_max_seconds integer,
    created_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        s.id, t.id, s.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, s.created_at
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    where p_ids is null or s.id = any(p_ids)
    order by s.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;
