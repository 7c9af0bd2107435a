-- Ends the leases that the caller may settle and says what became of each id: 1 settled by this call, 0 gone (no lease any more),
-- 2 stale (somebody else holds it). A null token is a bare message id: it settles whoever holds the message. Rows are locked in
-- position order. `ordinals` are the places, among the ids, of those that settled `positions`.
create or replace function fastpubsub.take_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out revived boolean [],
    out ordinals integer [],
    out outcomes smallint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- Positions that are further apart are looked up one by one, not by a walk over what lies between them.
    c_gap constant bigint := 64;
    v_positions bigint [];
    v_tokens bigint [];
    v_created_at timestamptz [];
    v_ordinals integer [];
    v_ends integer [];
    v_repeated boolean;
    v_start integer := 1;
    v_end integer;
    v_run record;
    v_settled_tokens bigint [];
    v_held bigint [];
begin
    select
        array_agg(i.position), array_agg(i.token), array_agg(i.created_at), array_agg(i.ordinal),
        array_agg(i.place) filter (where i.distance > c_gap or i.distance is null), bool_or(i.distance = 0)
    into v_positions, v_tokens, v_created_at, v_ordinals, v_ends, v_repeated
    from (
        select
            i.position, i.token, i.created_at, i.ordinal, row_number() over (order by i.position, i.ordinal) as place,
            lead(i.position) over (order by i.position, i.ordinal) - i.position as distance
        from unnest(p_positions, p_tokens, p_created_at) with ordinality as i (position, token, created_at, ordinal)
        order by i.position, i.ordinal
    ) as i;
    if v_repeated then
        -- Each id alone would settle what another one of this call settles: which of them has the right token is looked up first.
        select
            array_agg(i.position), array_agg(i.token), array_agg(i.created_at), array_agg(i.ordinal),
            array_agg(i.place) filter (where i.distance > c_gap or i.distance is null)
        into v_positions, v_tokens, v_created_at, v_ordinals, v_ends
        from (
            select
                i.position, i.token, i.created_at, i.ordinal, row_number() over (order by i.position) as place,
                lead(i.position) over (order by i.position) - i.position as distance
            from (
                select distinct on (i.position) i.position, i.token, i.created_at, i.ordinal
                from unnest(p_positions, p_tokens, p_created_at) with ordinality as i (position, token, created_at, ordinal)
                cross join lateral (
                    select l.token, l.created_at from fastpubsub.leases as l
                    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = i.position
                    limit 1
                ) as l
                where coalesce(l.token = i.token, l.created_at = i.created_at)
                order by i.position, i.ordinal
            ) as i
            order by i.position
        ) as i;
    end if;
    -- A join with the ids would be planned by statistics that lie, and so would `any` before PostgreSQL 17: a stretch of the key never
    -- is. The positions are sorted, so width_bucket finds an id's place by binary search.
    foreach v_end in array coalesce(v_ends, '{}') loop
        with taken as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_positions[v_end]
                and l.position = v_positions[width_bucket(l.position, v_positions)]
                and coalesce(
                    l.token = v_tokens[width_bucket(l.position, v_positions)],
                    l.created_at = v_created_at[width_bucket(l.position, v_positions)]
                )
            returning l.position, l.attempts, l.created_at, l.revived, l.token
        )
        select
            array_agg(t.position) as positions, array_agg(t.attempts) as attempts, array_agg(t.created_at) as created_at,
            array_agg(t.revived) as revived, array_agg(t.token) as tokens,
            array_agg(v_ordinals[width_bucket(t.position, v_positions)]) as ordinals
        into v_run
        from taken as t;
        positions := take_leases.positions || v_run.positions;
        attempts := take_leases.attempts || v_run.attempts;
        created_at := take_leases.created_at || v_run.created_at;
        revived := take_leases.revived || v_run.revived;
        ordinals := take_leases.ordinals || v_run.ordinals;
        v_settled_tokens := v_settled_tokens || v_run.tokens;
        v_start := v_end + 1;
    end loop;
    if cardinality(take_leases.positions) = cardinality(p_positions) then
        outcomes := array_fill(1::smallint, array[cardinality(p_positions)]);
        return;
    end if;
    select array_agg(distinct l.position) into v_held
    from unnest(p_positions) as i (position)
    cross join lateral (
        select l.position from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = i.position
        limit 1
    ) as l;
    outcomes := fastpubsub.settle_outcomes(
        p_positions, p_tokens, p_created_at, take_leases.positions, v_settled_tokens, take_leases.created_at, v_held
    );
end;
$$;
