-- Returns the subscriptions of list_kept_messages that keep anything beyond the retention, each with the oldest message that it needs, the
-- state of that message, and what is kept because of it. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_kept_messages(p_limit integer, p_retention_seconds bigint, p_now timestamptz default null)
returns table (
    topic_key bigint,
    topic_id text,
    subscription_id text,
    message_position bigint,
    created_at timestamptz,
    state text,
    messages bigint,
    bytes bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.topic_key, n.topic_id, n.subscription_id, k.kept_position, k.created_at, k.state, k.messages, k.bytes
    from fastpubsub.list_kept_messages(p_limit) as n
    inner join fastpubsub.subscriptions as s on n.subscription_id = s.id
    cross join lateral fastpubsub.subscription_metrics_2(s.topic_key, s.subscription_key, 1) as m
    cross join lateral fastpubsub.kept_log(
        s.topic_key, m.cursor_position + 1, m.leased_position, m.waiting_position, p_retention_seconds, p_now
    ) as k
    where k.messages > 0
    order by k.bytes desc;
end;
$$;
