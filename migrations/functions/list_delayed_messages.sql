-- Lists delayed messages of a topic by the time at which they are due, from after a given one on, up to p_limit and p_max_bytes (at least
-- one): those that wait, or those that are held. `looked_at` is how
-- many there would be without p_max_bytes.
create or replace function fastpubsub.list_delayed_messages(
    p_topic_key bigint,
    p_held boolean,
    p_after_due_at timestamptz,
    p_after_key bigint,
    p_limit integer,
    p_max_bytes bigint,
    out delayed_key bigint,
    out due_at timestamptz,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out looked_at bigint,
    out ttl_seconds integer,
    out expires_at timestamptz
) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_after fastpubsub.fired_messages;
    v_until timestamptz := 'infinity';
begin
    if p_held then
        select h.held_after, h.held_until into v_after.due_at, v_until from fastpubsub.heads as h where h.topic_key = p_topic_key;
        v_after.delayed_key := 9223372036854775807;
    else
        select f.due_at, f.delayed_key into v_after.due_at, v_after.delayed_key
        from fastpubsub.heads as h
        left join lateral (
            select f.due_at, f.delayed_key from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f on true
        where h.topic_key = p_topic_key;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif p_after_due_at >= v_after.due_at then
        v_after.due_at := p_after_due_at;
        v_after.delayed_key := p_after_key;
    end if;
    return query
    select r.delayed_key, r.due_at, r.created_at, r.payload, r.attributes, r.ordering_key, r.looked_at, r.ttl_seconds, r.expires_at
    from (
        select
            m.*, count(*) over () as looked_at,
            sum(pg_column_size(m.payload)) over (order by m.due_at, m.delayed_key) - pg_column_size(m.payload) as bytes_before
        from (
            select m.* from fastpubsub.delayed_messages as m
            where
                m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_after.due_at, v_after.delayed_key)
                and m.due_at <= v_until
            order by m.due_at, m.delayed_key
            limit p_limit
        ) as m
    ) as r
    where r.bytes_before < p_max_bytes
    order by r.due_at, r.delayed_key;
end;
$$;
