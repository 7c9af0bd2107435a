-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription, as free_keys, which is this and its
-- insert: a turn of which nothing is leased any more goes on. Its first parked message waits, or the first one that was put aside is in
-- `next`, or the key is no longer busy. p_cursor and p_retry_due_at are those of the newest claim. A turn of 0 stands for all messages from
-- p_positions to p_last_positions, of which each is a turn. One of -1 does, too, but behind none of them something was put aside, so they
-- are not looked at. `next` is in the order of the log, with `next_turns`. `waits` says that a parked message may be due.
create or replace function fastpubsub.end_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_cursor bigint,
    p_retry_due_at timestamptz,
    p_positions bigint [] default null,
    p_last_positions bigint [] default null,
    out next bigint [],
    out next_turns bigint [],
    out waits boolean
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_message fastpubsub.parked;
    v_parked bigint [];
    v_parked_turns bigint [];
    v_idle bigint [];
begin
    waits := false;
    -- The usual case of many keys.
    if 0 > all(p_turns) then
        return;
    end if;
    if 0 < any(p_turns) then
        select
            array_agg(t.turn) filter (where t.parked is not null),
            array_agg(t.parked) filter (where t.parked is not null),
            array_agg(t.turn) filter (where t.parked is null and t.next is not null),
            array_agg(t.next) filter (where t.parked is null and t.next is not null),
            array_agg(t.turn) filter (where t.parked is null and t.next is null)
        into v_parked_turns, v_parked, end_turns.next_turns, end_turns.next, v_idle
        from (
            select t.turn, p.position as parked, n.position as next
            from (select distinct u.turn from unnest(p_turns) as u (turn) where u.turn > 0) as t
            left join lateral (
                select p.position from fastpubsub.parked as p
                where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = t.turn
                order by p.position limit 1
            ) as p on true
            left join lateral (
                select k.position
                from (
                    select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
                    where p.position is null and m.topic_key = p_topic_key and m.position = t.turn
                    limit 1
                ) as m
                cross join lateral (
                    select k.position from fastpubsub.message_keys as k
                    where
                        k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > t.turn
                        and k.position <= p_cursor
                    order by k.position limit 1
                ) as k
            ) as n on true
            where
                (
                    select l.turn from fastpubsub.leases as l
                    where
                        l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= t.turn
                        and l.turn <= t.turn and l.turn <> l.last_position
                    -- With sorting off, only the index by turn has this order.
                    order by l.turn
                    limit 1
                ) is null
                and (
                    select l.turn from fastpubsub.leases as l
                    where
                        l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                        and l.position > t.turn - 100 and l.position <= t.turn and l.last_position = t.turn and l.turn = t.turn
                    limit 1
                ) is null
        ) as t;
    end if;
    if 0 = any(p_turns) then
        select end_turns.next || array_agg(k.position), end_turns.next_turns || array_agg(m.position)
        into end_turns.next, end_turns.next_turns
        from unnest(p_turns, p_positions, p_last_positions) as u (turn, position, last_position)
        cross join lateral (
            select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position >= u.position and m.position <= u.last_position
            order by m.position limit 100
        ) as m
        cross join lateral (
            select k.position from fastpubsub.message_keys as k
            where
                k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > m.position
                and k.position <= p_cursor
            order by k.position limit 1
        ) as k
        where u.turn = 0;
    end if;
    -- Joins with the arrays would be planned by wrong statistics.
    for i in 1..coalesce(cardinality(v_parked), 0) loop
        delete from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_parked_turns[i]
            and p.position = v_parked[i]
        returning p.* into v_message;
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        values (
            p_topic_key, p_subscription_key, greatest(v_message.due_at, p_retry_due_at + interval '1 microsecond'),
            v_message.position, v_message.attempts, v_message.reason, v_message.turn
        );
        waits := true;
    end loop;
    for i in 1..coalesce(cardinality(v_idle), 0) loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_idle[i];
    end loop;
    if cardinality(end_turns.next) > 1 then
        select array_agg(u.position order by u.position), array_agg(u.turn order by u.position)
        into end_turns.next, end_turns.next_turns
        from unnest(end_turns.next, end_turns.next_turns) as u (position, turn);
    end if;
end;
$$;
