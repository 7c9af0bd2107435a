-- Cuts claimed messages into leases: each has at most 100 consecutive positions, one consumer and one number of attempts. p_ends says how
-- many messages the first consumer gets, the first two together, and so on.
create or replace function fastpubsub.lease_runs(
    p_positions bigint [],
    p_attempts integer [],
    p_revived boolean [],
    p_ends bigint []
) returns table (first_position bigint, last_position bigint, attempts integer, revived boolean, consumer integer)
language plpgsql immutable
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_count bigint := cardinality(p_positions);
begin
    -- The usual case: a stretch of the log.
    if
        p_positions[v_count] - p_positions[1] = v_count - 1 and p_attempts = array_fill(1, array[v_count::integer])
        and not true = any(p_revived)
        -- Returned messages come first, and in another order.
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
    then
        return query
        select
            p_positions[1] + f, p_positions[1] + least(f + 99, e.ends - 1, v_count - 1), 1, false, e.consumer::integer
        from unnest(p_ends) with ordinality as e (ends, consumer)
        cross join lateral generate_series(coalesce(p_ends[e.consumer - 1], 0), least(e.ends, v_count) - 1, 100) as f;
        return;
    end if;
    return query
    select min(r.position), max(r.position), r.attempts, r.revived, r.consumer
    from (
        select
            m.position, m.attempts, m.revived, m.consumer,
            m.position - row_number() over (partition by m.consumer, m.attempts, m.revived order by m.position) as island
        from (
            select u.position, u.attempts, u.revived, 1 + width_bucket(u.ordinal - 1, p_ends) as consumer
            from unnest(p_positions, p_attempts, p_revived) with ordinality as u (position, attempts, revived, ordinal)
        ) as m
    ) as r
    group by r.consumer, r.attempts, r.revived, r.island, r.position / 100;
end;
$$;
