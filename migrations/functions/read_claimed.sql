-- For a claim of an ordered subscription: what belongs to these messages, of which some may be copies of dead letters. With p_max_bytes
-- there are none, and `created_at` is null where they do not fit, one is gone, or one has expired.
create or replace function fastpubsub.read_claimed(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_max_bytes bigint default null,
    p_now timestamptz default null,
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out size bigint
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
    v_count integer := cardinality(p_positions);
begin
    if v_count = 0 then
        return;
    end if;
    -- A stretch of the log is read as one.
    if
        p_positions[v_count] - p_positions[1] = v_count - 1
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
    then
        select array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes), array_agg(m.ordering_key), min(m.total)
        into
            read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys, read_claimed.size
        from (
            select
                m.created_at, m.payload, m.attributes, m.ordering_key,
                sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over () as total,
                bool_or(m.expires_at <= p_now) over () as are_expired
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position >= p_positions[1] and m.position <= p_positions[v_count]
            order by m.position
        ) as m
        -- Before payloads that are stored out of line are read.
        where p_max_bytes is null or (m.total <= p_max_bytes and m.are_expired is not true);
        if cardinality(read_claimed.created_at) = v_count then
            return;
        end if;
    end if;
    if p_max_bytes is not null then
        select array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes), array_agg(m.ordering_key), min(m.total)
        into
            read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys, read_claimed.size
        from (
            select
                m.created_at, m.payload, m.attributes, m.ordering_key, sum(m.size) over () as total,
                bool_or(m.expires_at <= p_now) over () as are_expired
            from unnest(p_positions) with ordinality as u (position, ordinal)
            cross join lateral (
                select
                    m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
                    pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size
                from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
            order by u.ordinal
        ) as m
        where m.total <= p_max_bytes and m.are_expired is not true;
        if cardinality(read_claimed.created_at) < v_count then
            created_at := null;
        end if;
        return;
    end if;
    select
        array_agg(coalesce(m.created_at, v.created_at) order by u.ordinal), array_agg(coalesce(m.payload, v.payload) order by u.ordinal),
        array_agg(coalesce(m.attributes, v.attributes) order by u.ordinal),
        array_agg(coalesce(m.ordering_key, v.ordering_key) order by u.ordinal)
    into read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys
    from unnest(p_positions) with ordinality as u (position, ordinal)
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position and m.payload is null
        limit 1
    ) as v on true;
end;
$$;
