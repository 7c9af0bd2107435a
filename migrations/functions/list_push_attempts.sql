-- The pushes of a subscription, or of one of its messages, newest first, before the one named p_before.
create or replace function fastpubsub.list_push_attempts(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_before bigint,
    p_limit integer
)
returns table (
    attempt_key bigint,
    message_position bigint,
    created_at timestamptz,
    pushed_at timestamptz,
    attempt integer,
    outcome text,
    status integer,
    milliseconds integer,
    said text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    if p_position is null then
        return query
        select a.attempt_key, a.position, a.created_at, a.pushed_at, a.attempt, a.outcome, a.status, a.milliseconds, a.said
        from fastpubsub.push_attempts as a
        where
            a.topic_key = p_topic_key and a.subscription_key = p_subscription_key
            and a.attempt_key < coalesce(p_before, 9223372036854775807)
        order by a.attempt_key desc
        limit p_limit;
        return;
    end if;
    return query
    select a.attempt_key, a.position, a.created_at, a.pushed_at, a.attempt, a.outcome, a.status, a.milliseconds, a.said
    from (
        select a.* from fastpubsub.push_attempts as a
        where
            a.topic_key = p_topic_key and a.subscription_key = p_subscription_key
            and a.position >= p_position and a.position <= p_position
        -- With sorting off, only the index by position has this order.
        order by a.position
        offset 0
    ) as a
    where a.attempt_key < coalesce(p_before, 9223372036854775807)
    order by a.attempt_key desc
    limit p_limit;
end;
$$;
