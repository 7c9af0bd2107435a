-- Takes single positions out of leases for take_leases, in whatever runs they come; the caller holds the cursor. The rest of a lease stays,
-- as leases with the same token and deadline.
create or replace function fastpubsub.cut_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    out positions bigint [],
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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_wanted bigint [];
    v_ordinals integer [];
    v_firsts bigint [];
    v_part record;
    v_lease fastpubsub.leases;
begin
    -- No lease is longer than 100 positions: a position belongs to the nearest lease that begins at or before it.
    select
        array_agg(i.position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.ordinal order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.first_position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.outcome order by i.ordinal, i.step)
    into v_wanted, v_ordinals, v_firsts, cut_leases.outcomes
    from (
        select
            i.position, i.ordinal, i.step, i.first_position, i.outcome,
            row_number() over (partition by i.position, i.outcome order by i.ordinal, i.step) = 1 as is_first
        from (
            select
                i.position, i.ordinal, i.step, l.position as first_position,
                case
                    when l.position is null or l.last_position < i.position then 0
                    when i.token is not null then case when l.token = i.token then 1 else 2 end
                    when
                        i.created_at = (
                            select m.created_at from fastpubsub.messages as m
                            where m.topic_key = p_topic_key and m.position = i.position
                        )
                        or i.created_at = (
                            select v.created_at from fastpubsub.revived as v
                            where
                                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = i.position
                        )
                        then 1
                    else 2
                end::smallint as outcome
            from (
                select r.position + s as position, r.token, r.created_at, r.ordinal, s as step
                from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                    with ordinality as r (position, length, token, created_at, ordinal)
                cross join lateral generate_series(0, coalesce(r.length, 1) - 1) as s
            ) as i
            left join lateral (
                select l.position, l.last_position, l.token from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position <= i.position and l.position > i.position - 100
                order by l.position desc
                limit 1
            ) as l on true
        ) as i
    ) as i;
    for v_part in
        select w.first_position, array_agg(w.position order by w.position) as positions
        from unnest(v_wanted, v_firsts) as w (position, first_position)
        group by w.first_position
        order by w.first_position
    loop
        delete from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_part.first_position
        returning l.* into v_lease;
        if not found then
            raise exception using errcode = '40001', message = 'another call settled a delivery at the same moment';
        end if;
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, v_lease.token, v_lease.leased_at, v_lease.expires_at,
            v_lease.attempts, v_lease.revived, v_lease.consumer_id, v_lease.turn
        from (
            select lag(p, 1, v_lease.position - 1) over (order by p) + 1 as position, p - 1 as last_position
            from unnest(v_part.positions || v_lease.last_position + 1) as p
        ) as r
        where r.position <= r.last_position;
        positions := cut_leases.positions || v_part.positions;
        tokens := cut_leases.tokens || array_fill(v_lease.token, array[cardinality(v_part.positions)]);
        leased_at := cut_leases.leased_at || array_fill(v_lease.leased_at, array[cardinality(v_part.positions)]);
        attempts := cut_leases.attempts || array_fill(v_lease.attempts, array[cardinality(v_part.positions)]);
        revived := cut_leases.revived || array_fill(v_lease.revived, array[cardinality(v_part.positions)]);
        consumer_ids := cut_leases.consumer_ids || array_fill(v_lease.consumer_id, array[cardinality(v_part.positions)]);
        turns := cut_leases.turns || array_fill(v_lease.turn, array[cardinality(v_part.positions)]);
    end loop;
    ordinals := v_ordinals;
end;
$$;
