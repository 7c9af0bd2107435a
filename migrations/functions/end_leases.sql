-- For an ack of an ordered subscription, whose cursor the caller holds: ends deliveries as take_leases does, but without a look before at
-- whether they are whole. What is left of them is cut. A few runs that come in order, each one whole lease, are one delete each, as in
-- end_whole_leases.
create or replace function fastpubsub.end_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    out positions bigint [],
    out last_positions bigint [],
    out revived boolean [],
    out turns bigint [],
    out outcomes smallint []
)
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
    -- As in take_leases.
    c_gap constant bigint := 64;
    c_runs constant integer := 8;
    v_runs integer := cardinality(p_positions);
    v_in_order boolean := cardinality(p_positions) <= c_runs;
    v_whole integer := 0;
    v_messages integer := 0;
    v_length integer;
    v_positions bigint [];
    v_lasts bigint [];
    v_tokens bigint [];
    v_ends integer [];
    v_count bigint;
    v_left bigint;
    v_are_apart boolean;
    v_start integer := 1;
    v_end integer;
    v_taken record;
begin
    for i in 2..least(v_runs, c_runs) loop
        v_in_order := v_in_order and p_positions[i] >= p_positions[i - 1] + coalesce(p_lengths[i - 1], 1);
    end loop;
    if v_in_order then
        for i in 1..v_runs loop
            v_length := coalesce(p_lengths[i], 1);
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = p_positions[i]
                and l.last_position = p_positions[i] + v_length - 1 and l.token = p_tokens[i]
            returning l.revived, l.turn into v_taken;
            exit when not found;
            v_whole := i;
            v_messages := v_messages + v_length;
            positions := end_leases.positions || p_positions[i];
            last_positions := end_leases.last_positions || p_positions[i] + v_length - 1;
            revived := end_leases.revived || v_taken.revived;
            turns := end_leases.turns || v_taken.turn;
        end loop;
        outcomes := array_fill(1::smallint, array[v_messages]);
        if v_whole = v_runs then
            return;
        elsif v_whole > 0 then
            v_taken := fastpubsub.end_leases(
                p_topic_key, p_subscription_key, p_positions[v_whole + 1 :], p_tokens[v_whole + 1 :], p_created_at[v_whole + 1 :],
                p_lengths[v_whole + 1 :]
            );
            positions := end_leases.positions || v_taken.positions;
            last_positions := end_leases.last_positions || v_taken.last_positions;
            revived := end_leases.revived || v_taken.revived;
            turns := end_leases.turns || v_taken.turns;
            outcomes := end_leases.outcomes || v_taken.outcomes;
            return;
        end if;
    end if;
    select
        array_agg(r.position), array_agg(r.last_position), array_agg(r.token),
        array_agg(r.place) filter (where r.distance > c_gap or r.distance is null), sum(r.last_position - r.position + 1),
        bool_and(r.token is not null and coalesce(r.distance > 0, true))
    into v_positions, v_lasts, v_tokens, v_ends, v_count, v_are_apart
    from (
        select
            r.position, r.last_position, r.token, row_number() over (order by r.position) as place,
            lead(r.position) over (order by r.position) - r.last_position as distance
        from (
            select r.position, r.position + coalesce(r.length, 1) - 1 as last_position, r.token
            from unnest(p_positions, p_lengths, p_tokens) as r (position, length, token)
        ) as r
        order by r.position
    ) as r;
    if v_are_apart is not true then
        v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
        positions := v_taken.positions;
        last_positions := v_taken.last_positions;
        revived := v_taken.revived;
        turns := v_taken.turns;
        outcomes := v_taken.outcomes;
        return;
    end if;
    v_left := v_count;
    foreach v_end in array v_ends loop
        with ended as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_lasts[v_end]
                and l.last_position <= v_lasts[width_bucket(l.position, (select v_positions))]
                and l.token = v_tokens[width_bucket(l.position, (select v_positions))]
            returning l.position, l.last_position, l.revived, l.turn
        )
        select
            array_agg(e.position) as positions, array_agg(e.last_position) as last_positions, array_agg(e.revived) as revived,
            array_agg(e.turn) as turns, sum(e.last_position - e.position + 1) as messages
        into v_taken
        from ended as e;
        positions := end_leases.positions || v_taken.positions;
        last_positions := end_leases.last_positions || v_taken.last_positions;
        revived := end_leases.revived || v_taken.revived;
        turns := end_leases.turns || v_taken.turns;
        v_left := v_left - coalesce(v_taken.messages, 0);
        v_start := v_end + 1;
    end loop;
    if v_left = 0 then
        outcomes := array_fill(1::smallint, array[v_count::integer]);
        return;
    end if;
    v_taken := fastpubsub.cut_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    select
        array_agg(
            case
                when i.position <= end_leases.last_positions[width_bucket(i.position, end_leases.positions)] then 1
                else v_taken.outcomes[i.ordinal]
            end::smallint order by i.ordinal
        )
    into end_leases.outcomes
    from (
        select r.position + s as position, row_number() over (order by r.ordinal, s) as ordinal
        from unnest(p_positions, p_lengths) with ordinality as r (position, length, ordinal)
        cross join lateral generate_series(0, coalesce(r.length, 1) - 1) as s
    ) as i;
    positions := end_leases.positions || v_taken.positions;
    last_positions := end_leases.last_positions || v_taken.positions;
    revived := end_leases.revived || v_taken.revived;
    turns := end_leases.turns || v_taken.turns;
end;
$$;
