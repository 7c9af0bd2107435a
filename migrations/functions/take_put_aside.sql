-- For take_turns: what was put aside of some keys, each told by its turn and its first message, up to the cursor and p_share messages a
-- key. `turns` are those from now on. `positions` is null where this is not all there is to it: a message has expired or is gone, or they
-- do not fit into p_max_bytes.
create or replace function fastpubsub.take_put_aside(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_turns bigint [],
    p_cursor bigint,
    p_share integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out turns bigint [],
    out size bigint,
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_keys bigint;
    v_fitting bigint;
    v_read record;
begin
    -- What is read of several keys comes message by message, so each is looked up here, and is usually small enough to fit whatever the
    -- others are.
    select
        array_agg(k.position), array_agg(k.turn), count(distinct k.ordinal), count(*) filter (where m.fits), sum(m.size),
        array_agg(m.created_at), array_agg(m.payload) filter (where m.fits), array_agg(m.attributes) filter (where m.fits),
        array_agg(m.ordering_key)
    into
        take_put_aside.positions, take_put_aside.turns, v_keys, v_fitting, take_put_aside.size, take_put_aside.created_at,
        take_put_aside.payloads, take_put_aside.attributes, take_put_aside.ordering_keys
    from (
        select u.ordinal, k.position, k.turn
        from unnest(p_positions, p_turns) with ordinality as u (position, turn, ordinal)
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = u.position
            limit 1
        ) as m
        cross join lateral (
            select k.position, max(k.position) over () as turn
            from (
                select k.position from fastpubsub.message_keys as k
                where
                    k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > u.turn and k.position <= p_cursor
                order by k.position limit p_share
            ) as k
        ) as k
        order by u.ordinal, k.position
    ) as k
    left join lateral (
        select
            m.created_at, m.payload, m.attributes, m.ordering_key,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) <= p_max_bytes / (p_share * cardinality(p_turns))
            and (m.expires_at > p_now) is not false as fits
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = k.position and cardinality(p_turns) > 1
        limit 1
    ) as m on true;
    if v_keys = cardinality(p_turns) and v_fitting = cardinality(take_put_aside.positions) then
        return;
    end if;
    created_at := null;
    -- What one key has may be a stretch of the log, which is read as one.
    if v_keys = cardinality(p_turns) then
        v_read := fastpubsub.read_claimed(p_topic_key, p_subscription_key, take_put_aside.positions, p_max_bytes, p_now);
        size := v_read.size;
        created_at := v_read.created_at;
        payloads := v_read.payloads;
        attributes := v_read.attributes;
        ordering_keys := v_read.ordering_keys;
    end if;
    if take_put_aside.created_at is null then
        positions := null;
    end if;
end;
$$;
