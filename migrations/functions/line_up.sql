-- For a claim of a fair subscription, which had the messages of some keys up to p_turns: a key with more up to
-- p_cursor takes its place at the end of the line again, at p_due_at; one without is no longer busy.
create or replace function fastpubsub.line_up(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_cursor bigint,
    p_due_at timestamptz
) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_idle bigint [];
    v_position bigint;
begin
    with turns as materialized (
        select u.turn, n.position
        from unnest(p_turns) as u (turn)
        left join lateral (
            select k.position
            from (
                select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.turn
                limit 1
            ) as m
            cross join lateral (
                select k.position from fastpubsub.message_keys as k
                where
                    k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > u.turn and k.position <= p_cursor
                order by k.position limit 1
            ) as k
        ) as n on true
    ),
    going_on as (
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        select p_topic_key, p_subscription_key, p_due_at, t.position, 0, 'put aside', t.turn
        from turns as t where t.position is not null
    )
    select array_agg(t.turn) into v_idle from turns as t where t.position is null;
    -- A join with the array would be planned by wrong statistics.
    foreach v_position in array coalesce(v_idle, '{}') loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_position;
    end loop;
end;
$$;
