-- For read_log_in_order without a filter: all messages in (p_after, p_to] whose key is not busy, and those keys that are, as there. p_taken
-- are those that the same claim took before. `scanned` is null where this is not all there is to it: a message has
-- expired, or they do not fit into p_limit and p_max_bytes. What belongs to the messages comes with them where all of them are taken,
-- and each is small enough to fit whatever the others are.
create or replace function fastpubsub.take_stretch(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint,
    p_first bigint,
    p_taken bigint [],
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out scanned bigint,
    out is_full boolean,
    out size bigint,
    out positions bigint [],
    out turns bigint [],
    out filtered integer,
    out busy bigint [],
    out tails bigint [],
    out expired bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_count integer;
    v_is_all boolean;
    v_last bigint;
    v_hashes bigint [];
    v_sizes integer [];
    v_keys bigint;
    v_keyless boolean;
    -- Of the keys that are busy or have several messages here.
    v_marked bigint [];
    v_busy bigint [];
    v_tails bigint [];
    v_place integer;
    v_is_told boolean [];
begin
    select
        count(*), max(s.position), bool_and((s.expires_at > p_now) is not false), array_agg(s.key_hash), bool_or(s.key_hash is null),
        array_agg(s.size), sum(s.size), array_agg(s.position), array_agg(s.created_at),
        array_agg(s.payload) filter (where s.fits), array_agg(s.attributes) filter (where s.fits), array_agg(s.ordering_key)
    into
        v_count, v_last, v_is_all, v_hashes, v_keyless, v_sizes, take_stretch.size, take_stretch.positions, take_stretch.created_at,
        take_stretch.payloads, take_stretch.attributes, take_stretch.ordering_keys
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
            hashtextextended(m.ordering_key, 0) as key_hash,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
            p_to - p_after <= p_limit
            and pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) <= p_max_bytes / p_limit as fits
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    ) as s;
    is_full := false;
    filtered := 0;
    -- As everywhere: positions are dense.
    if v_is_all is not true or v_last <> p_after + v_count then
        return;
    end if;
    -- The message of a key before the first one here tells whether the key is busy.
    select
        count(*), array_agg(k.key_hash) filter (where k.messages > 1 or k.busy is not null),
        array_agg(k.busy) filter (where k.messages > 1 or k.busy is not null),
        array_agg(p_after + k.last) filter (where k.messages > 1 or k.busy is not null)
    into v_keys, v_marked, v_busy, v_tails
    from (
        select
            k.*,
            (
                select b.position
                from (
                    select b.position from fastpubsub.message_keys as b
                    where
                        b.topic_key = p_topic_key and b.key_hash = k.key_hash and b.position < p_after + k.first
                        and b.position >= p_first
                    order by b.position desc limit 1
                ) as b
                where
                    (
                        select y.position from fastpubsub.busy_keys as y
                        where y.topic_key = p_topic_key and y.subscription_key = p_subscription_key and y.position = b.position
                        limit 1
                    ) is not null
                    or (
                        select l.last_position >= b.position and l.turn <= 0 from fastpubsub.leases as l
                        where
                            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                            and l.position > b.position - 100 and l.position <= b.position
                        order by l.position desc limit 1
                    )
                    or b.position = any(p_taken)
            ) as busy
        from (
            select u.key_hash, min(u.ordinal) as first, max(u.ordinal) as last, count(*) as messages
            from unnest(v_hashes) with ordinality as u (key_hash, ordinal)
            where u.key_hash is not null
            group by u.key_hash
        ) as k
        -- Or it would be looked up each time that it is named.
        offset 0
    ) as k;
    if v_marked is null then
        turns := array_fill(-1::bigint, array[v_count]);
    elsif v_keys = 1 and not v_keyless then
        if v_busy[1] is null then
            turns := array_fill(v_last, array[v_count]);
        else
            busy := v_busy;
            tails := v_tails;
            positions := null;
            size := 0;
        end if;
    else
        v_is_told := array_fill(false, array[cardinality(v_marked)]);
        positions := null;
        size := 0;
        for i in 1..v_count loop
            v_place := array_position(v_marked, v_hashes[i]);
            if v_busy[v_place] is null then
                positions := take_stretch.positions || p_after + i;
                turns := take_stretch.turns || coalesce(v_tails[v_place], -1);
                size := take_stretch.size + v_sizes[i];
            elsif not v_is_told[v_place] then
                v_is_told[v_place] := true;
                busy := take_stretch.busy || v_busy[v_place];
                tails := take_stretch.tails || v_tails[v_place];
            end if;
        end loop;
        if cardinality(take_stretch.busy) > 1 then
            select array_agg(u.busy order by u.busy), array_agg(u.tail order by u.busy) into take_stretch.busy, take_stretch.tails
            from unnest(take_stretch.busy, take_stretch.tails) as u (busy, tail);
        end if;
    end if;
    if coalesce(cardinality(take_stretch.positions), 0) < v_count or coalesce(cardinality(take_stretch.payloads), 0) < v_count then
        created_at := null;
    end if;
    v_count := coalesce(cardinality(take_stretch.positions), 0);
    if
        take_stretch.size <= p_max_bytes
        -- The cursor stops at the last one for which there was room.
        and (v_count < p_limit or (v_count = p_limit and take_stretch.positions[v_count] = v_last))
    then
        scanned := v_last;
    end if;
end;
$$;
