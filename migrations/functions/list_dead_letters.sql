-- Oldest position first.
create or replace function fastpubsub.list_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_offset bigint,
    p_limit integer,
    p_max_bytes bigint
) returns table (
    message_position bigint,
    created_at timestamptz,
    died_at timestamptz,
    attempts integer,
    reason text,
    payload json,
    attributes jsonb
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    select t.position, t.created_at, t.died_at, t.attempts, t.reason, t.payload, t.attributes
    from (
        select
            p.*,
            sum(pg_column_size(p.payload) + coalesce(pg_column_size(p.attributes), 0)) over (order by p.position) as running,
            row_number() over (order by p.position) as ordinal
        from (
            select d.* from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
            order by d.position
            offset p_offset
            limit p_limit
        ) as p
    ) as t
    where t.running <= p_max_bytes or t.ordinal = 1
    order by t.position;
end;
$$;
