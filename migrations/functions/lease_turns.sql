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
begin
    -- A stretch of the log, of a single turn or of messages that are alone with their key.
    if
        p_retried = 0 and p_positions[v_count] - p_positions[1] = v_count - 1 and p_turns[1] = all(p_turns) and 1 = all(p_attempts)
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
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
