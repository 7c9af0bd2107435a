-- Returns the messages of a topic in (p_after, p_to], in order, up to p_max_bytes together; with p_at_least_one, the first one comes
-- whatever its size. `expires_at` is null when no message has one.
create or replace function fastpubsub.read_log(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out expires_at timestamptz []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_to bigint := p_to;
begin
    -- Read the sizes first: that does not read the payloads that are stored out of line.
    if (
        select sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) > p_max_bytes
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
    ) then
        select coalesce(max(s.position), p_after) into v_to
        from (
            select
                m.position, row_number() over (order by m.position) as ordinal,
                sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        ) as s
        where s.running <= p_max_bytes or (p_at_least_one and s.ordinal = 1);
    end if;
    select
        array_agg(m.position), array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes),
        case when count(m.ordering_key) > 0 then array_agg(m.ordering_key) end,
        case when count(m.expires_at) > 0 then array_agg(m.expires_at) end
    into
        read_log.positions, read_log.created_at, read_log.payloads, read_log.attributes, read_log.ordering_keys, read_log.expires_at
    from (
        select m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= v_to
        order by m.position
    ) as m;
end;
$$;
