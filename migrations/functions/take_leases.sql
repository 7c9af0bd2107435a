-- Ends the deliveries that the caller may settle. The ids come in runs of p_lengths (null: 1 each) consecutive positions from p_positions
-- on. A run has one token, or one creation time and no token: the latter stands for bare message ids, which settle a message whoever its
-- consumer is. The result comes in runs too; its `ordinals` tell which run of the caller settled each. `outcomes` says of every id, in the
-- order of the runs: 1 settled by this call, 0 gone (there is no delivery any more), 2 stale (another consumer holds the message).
--
-- Runs that consist of whole leases are deleted without the cursor's lock, in position order. All others cut leases and take that lock.
create or replace function fastpubsub.take_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    out positions bigint [],
    out last_positions bigint [],
    out tokens bigint [],
    out leased_at timestamptz [],
    out attempts integer [],
    out revived boolean [],
    out consumer_ids text [],
    out ordinals integer [],
    out outcomes smallint [],
    out turns bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    -- Runs that are further apart are looked up one by one, without walking over the rows between them.
    c_gap constant bigint := 64;
    v_positions bigint [];
    v_lasts bigint [];
    v_tokens bigint [];
    v_ordinals integer [];
    v_ends integer [];
    v_count bigint;
    v_whole boolean;
    v_start integer := 1;
    v_end integer;
    v_taken record;
begin
    select
        array_agg(r.position), array_agg(r.last_position), array_agg(r.token), array_agg(r.ordinal),
        array_agg(r.place) filter (where r.distance > c_gap or r.distance is null), sum(r.last_position - r.position + 1),
        bool_and(r.is_whole and (r.distance > 0 or r.distance is null))
    into v_positions, v_lasts, v_tokens, v_ordinals, v_ends, v_count, v_whole
    from (
        select
            r.position, r.last_position, r.token, r.ordinal, row_number() over (order by r.position, r.ordinal) as place,
            lead(r.position) over (order by r.position, r.ordinal) - r.last_position as distance,
            r.last_position - r.position + 1 = (
                select coalesce(sum(l.last_position - l.position + 1), 0) from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position >= r.position and l.position <= r.last_position and l.last_position <= r.last_position
                    and case
                        when r.token is not null then l.token = r.token
                        when l.revived then l.last_position - l.position + 1 = (
                            select count(*) from fastpubsub.revived as v
                            where
                                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                                and v.position >= l.position and v.position <= l.last_position and v.created_at = r.created_at
                        )
                        else l.last_position - l.position + 1 = (
                            select count(*) from fastpubsub.messages as m
                            where
                                m.topic_key = p_topic_key and m.position >= l.position and m.position <= l.last_position
                                and m.created_at = r.created_at
                        )
                    end
            ) as is_whole
        from (
            select r.position, r.position + coalesce(r.length, 1) - 1 as last_position, r.token, r.created_at, r.ordinal
            from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                with ordinality as r (position, length, token, created_at, ordinal)
        ) as r
        order by r.position, r.ordinal
    ) as r;
    if v_whole is not true then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
        v_taken := fastpubsub.cut_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
        positions := v_taken.positions;
        last_positions := v_taken.positions;
        tokens := v_taken.tokens;
        leased_at := v_taken.leased_at;
        attempts := v_taken.attempts;
        revived := v_taken.revived;
        consumer_ids := v_taken.consumer_ids;
        ordinals := v_taken.ordinals;
        outcomes := v_taken.outcomes;
        turns := v_taken.turns;
        return;
    end if;
    -- A join with the ids would be planned by wrong statistics, and so would `any` before PostgreSQL 17; a range of the key never is.
    -- The runs are sorted, so width_bucket finds the run of a lease by binary search.
    foreach v_end in array v_ends loop
        with taken as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_lasts[v_end]
                and l.last_position <= v_lasts[width_bucket(l.position, v_positions)]
                and coalesce(l.token = v_tokens[width_bucket(l.position, v_positions)], true)
            returning l.position, l.last_position, l.token, l.leased_at, l.attempts, l.revived, l.consumer_id, l.turn
        )
        select
            array_agg(t.position) as positions, array_agg(t.last_position) as last_positions, array_agg(t.token) as tokens,
            array_agg(t.leased_at) as leased_at, array_agg(t.attempts) as attempts, array_agg(t.revived) as revived, array_agg(t.consumer_id) as consumer_ids,
            array_agg(v_ordinals[width_bucket(t.position, v_positions)]) as ordinals, array_agg(t.turn) as turns
        into v_taken
        from taken as t;
        positions := take_leases.positions || v_taken.positions;
        last_positions := take_leases.last_positions || v_taken.last_positions;
        tokens := take_leases.tokens || v_taken.tokens;
        leased_at := take_leases.leased_at || v_taken.leased_at;
        attempts := take_leases.attempts || v_taken.attempts;
        revived := take_leases.revived || v_taken.revived;
        consumer_ids := take_leases.consumer_ids || v_taken.consumer_ids;
        ordinals := take_leases.ordinals || v_taken.ordinals;
        turns := take_leases.turns || v_taken.turns;
        v_start := v_end + 1;
    end loop;
    if
        v_count is distinct from (
            select sum(t.last_position - t.position + 1)
            from unnest(take_leases.positions, take_leases.last_positions) as t (position, last_position)
        )
    then
        raise exception using
            errcode = '40001', message = 'another call settled, cut or extended a delivery at the same moment';
    end if;
    outcomes := array_fill(1::smallint, array[v_count::integer]);
end;
$$;
