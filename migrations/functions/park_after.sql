-- For a caller that holds the cursor and has parked messages of these turns: what is leased after the first parked message of a turn is
-- given back and parked too, as if it had not been delivered.
create or replace function fastpubsub.park_after(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_now timestamptz
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
    v_turn bigint;
    v_first bigint;
    v_lease record;
begin
    for v_turn in select distinct u.turn from unnest(p_turns) as u (turn) where u.turn is not null loop
        select p.position into v_first from fastpubsub.parked as p
        where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_turn
        order by p.position limit 1;
        continue when not found;
        -- A join of the two would be planned by wrong statistics.
        for v_lease in
            (
                select l.position, l.last_position, l.attempts from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= v_turn and l.turn <= v_turn
                    and l.turn <> l.last_position and l.position > v_first
                -- With sorting off, only the index by turn has this order.
                order by l.turn
                offset 0
            )
            union all
            select l.position, l.last_position, l.attempts from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position > greatest(v_turn - 100, v_first)
                and l.position <= v_turn and l.last_position = v_turn and l.turn = v_turn
        loop
            delete from fastpubsub.leases as l
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
            insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
            select p_topic_key, p_subscription_key, v_turn, p, p_now, v_lease.attempts - 1, 'returned'
            from generate_series(v_lease.position, v_lease.last_position) as p;
        end loop;
    end loop;
end;
$$;
