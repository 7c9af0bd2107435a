-- For claim_in_order: leases these messages to a consumer, neighbors of one turn together. The first p_retried may be copies of dead
-- letters.
create or replace function fastpubsub.lease_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_attempts integer [],
    p_turns bigint [],
    p_retried integer,
    p_token bigint,
    p_now timestamptz,
    p_expires_at timestamptz,
    p_consumer_id text
) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_count integer := cardinality(p_positions);
    v_firsts bigint [];
    v_lasts bigint [];
    v_run_turns bigint [];
    v_runs integer := 0;
begin
    -- Of a single turn, or of messages that are alone with their key: these come in the order of the log.
    if
        p_retried = 0 and p_positions[v_count] - p_positions[1] = v_count - 1 and p_turns[1] = all(p_turns) and 1 = all(p_attempts)
    then
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, f, least(f + 99, p_positions[v_count]), p_token, p_now, p_expires_at, 1, false, p_consumer_id,
            p_turns[1]
        from generate_series(p_positions[1], p_positions[v_count], 100) as f;
        return;
    end if;
    -- None has a neighbor, as where several keys alternate.
    if
        p_retried = 0
        and not exists (
            select from unnest(p_positions, p_positions[2:]) as u (position, next_position) where u.next_position = u.position + 1
        )
    then
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, u.position, u.position, p_token, p_now, p_expires_at, u.attempts, false, p_consumer_id, u.turn
        from unnest(p_positions, p_attempts, p_turns) as u (position, attempts, turn);
        return;
    end if;
    if p_retried = 0 and 1 = all(p_attempts) then
        for i in 1..v_count loop
            if p_positions[i] = v_lasts[v_runs] + 1 and p_turns[i] = v_run_turns[v_runs] and p_positions[i] - v_firsts[v_runs] < 100 then
                v_lasts[v_runs] := p_positions[i];
            else
                v_firsts := v_firsts || p_positions[i];
                v_lasts := v_lasts || p_positions[i];
                v_run_turns := v_run_turns || p_turns[i];
                v_runs := v_runs + 1;
            end if;
        end loop;
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, p_token, p_now, p_expires_at, 1, false, p_consumer_id, r.turn
        from unnest(v_firsts, v_lasts, v_run_turns) as r (position, last_position, turn);
        return;
    end if;
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
    )
    select
        p_topic_key, p_subscription_key, min(r.position), max(r.position), p_token, p_now, p_expires_at,
        r.attempts, r.revived, p_consumer_id, r.turn
    from (
        select
            m.*, m.position - row_number() over (partition by m.turn, m.attempts, m.revived order by m.position) as island
        from (
            select
                u.position, u.attempts, u.turn,
                u.ordinal <= p_retried and exists (
                    select from fastpubsub.revived as v
                    where
                        v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
                    -- Or it would read all copies, to look each one up.
                    offset 0
                ) as revived
            from unnest(p_positions, p_attempts, p_turns) with ordinality as u (position, attempts, turn, ordinal)
        ) as m
    ) as r
    group by r.turn, r.attempts, r.revived, r.island, r.position / 100;
end;
$$;
