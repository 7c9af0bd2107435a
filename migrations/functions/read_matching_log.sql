-- Returns the messages after p_after that a filter matches, bounded like scan_log, and by bytes like read_log. `scanned` is how far the
-- cursor can move: a position up to there that is not in `positions` does not match. Payloads that the filter cannot read are in
-- `unreadable`. `expires_at` is null when no message has one.
create or replace function fastpubsub.read_matching_log(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_rows bigint,
    p_milliseconds integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out scanned bigint,
    out unreadable bigint [],
    out unreadable_created_at timestamptz [],
    out ordering_keys text [],
    out expires_at timestamptz []
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
    v_found record;
begin
    v_found := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, p_limit, p_rows, p_milliseconds);
    scanned := v_found.scanned;
    if cardinality(v_found.unreadable) > 0 then
        select array_agg(m.position), array_agg(m.created_at)
        into read_matching_log.unreadable, read_matching_log.unreadable_created_at
        from unnest(v_found.unreadable) as u (position)
        cross join lateral (
            select m.position, m.created_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = u.position
            limit 1
        ) as m;
    end if;
    select
        array_agg(t.position), array_agg(t.created_at), array_agg(t.payload), array_agg(t.attributes),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at) end
    into
        read_matching_log.positions, read_matching_log.created_at, read_matching_log.payloads, read_matching_log.attributes,
        read_matching_log.ordering_keys, read_matching_log.expires_at
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running,
            row_number() over (order by m.position) as ordinal
        from unnest(v_found.positions) as p (position)
        cross join lateral (
            select m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            limit 1
        ) as m
        order by m.position
    ) as t
    where t.running <= p_max_bytes or (p_at_least_one and t.ordinal = 1);
    if coalesce(cardinality(read_matching_log.positions), 0) < cardinality(v_found.positions) then
        scanned := coalesce(read_matching_log.positions[cardinality(read_matching_log.positions)], p_after);
    end if;
end;
$$;
