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
    v_read record;
begin
    select array_agg(k.position), array_agg(k.turn), count(distinct k.ordinal)
    into take_put_aside.positions, take_put_aside.turns, v_keys
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
    ) as k;
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
