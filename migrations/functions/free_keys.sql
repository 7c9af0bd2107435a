-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription. A turn of which nothing is leased any
-- more goes on: its first parked message waits, or the first one that was put aside is due, or the key is no longer busy. Returns whether
-- there is something new to claim. A turn of 0 stands for all messages from p_positions to p_last_positions, of which each is a turn.
-- One of -1 does, too, but behind none of them something was put aside, so they are not looked at.
create or replace function fastpubsub.free_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_now timestamptz,
    p_positions bigint [] default null,
    p_last_positions bigint [] default null
) returns boolean
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
    v_cursor fastpubsub.claims;
    v_message fastpubsub.parked;
    v_parked bigint [];
    v_parked_turns bigint [];
    v_next bigint [];
    v_next_turns bigint [];
    v_idle bigint [];
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select
        array_agg(t.turn) filter (where t.parked is not null),
        array_agg(t.parked) filter (where t.parked is not null),
        array_agg(t.turn) filter (where t.parked is null and t.next is not null),
        array_agg(t.next) filter (where t.parked is null and t.next is not null),
        array_agg(t.turn) filter (where t.parked is null and t.next is null)
    into v_parked_turns, v_parked, v_next_turns, v_next, v_idle
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
                    and k.position <= v_cursor.position
                order by k.position limit 1
            ) as k
        ) as n on true
        where
            (
                select l.turn from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= t.turn and l.turn <= t.turn
                    and l.turn <> l.last_position
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
    if 0 = any(p_turns) then
        select v_next || array_agg(k.position), v_next_turns || array_agg(m.position) into v_next, v_next_turns
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
                and k.position <= v_cursor.position
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
            p_topic_key, p_subscription_key, greatest(v_message.due_at, v_cursor.retry_due_at + interval '1 microsecond'),
            v_message.position, v_message.attempts, v_message.reason, v_message.turn
        );
    end loop;
    if v_next is not null then
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        select
            p_topic_key, p_subscription_key, greatest(p_now, v_cursor.retry_due_at + interval '1 microsecond'), u.position, 0,
            'put aside', u.turn
        from unnest(v_next, v_next_turns) as u (position, turn);
    end if;
    for i in 1..coalesce(cardinality(v_idle), 0) loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_idle[i];
    end loop;
    return v_parked is not null or v_next is not null;
end;
$$;
