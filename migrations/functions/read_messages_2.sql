-- Follows a topic: returns up to p_limit messages after p_after, without a lease, bounded by bytes (the first always comes). With a null
-- p_after it returns only `last`, the newest position. `missed` says whether trimming took messages after p_after before they were read.
-- What has expired is left out; `scanned` is how far this came.
create or replace function fastpubsub.read_messages_2(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz default null,
    out last bigint,
    out missed boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out scanned bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_after bigint := p_after;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    missed := false;
    if v_after is null or v_after >= read_messages_2.last then
        return;
    end if;
    if
        not exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_after + 1)
    then
        missed := true;
        v_after := fastpubsub.first_position(p_topic_key, read_messages_2.last) - 1;
    end if;
    select
        array_agg(t.position order by t.position) filter (where t.is_live),
        array_agg(t.created_at order by t.position) filter (where t.is_live),
        array_agg(t.payload order by t.position) filter (where t.is_live),
        array_agg(t.attributes order by t.position) filter (where t.is_live),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key order by t.position) filter (where t.is_live) end,
        max(t.position)
    into read_messages_2.positions, read_messages_2.created_at, read_messages_2.payloads, read_messages_2.attributes,
        read_messages_2.ordering_keys, read_messages_2.scanned
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, (m.expires_at <= v_now) is not true as is_live,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > v_after and m.position <= v_after + p_limit
        order by m.position
    ) as t
    where t.running <= p_max_bytes or t.position = v_after + 1;
end;
$$;
