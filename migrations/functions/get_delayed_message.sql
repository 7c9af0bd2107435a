-- Returns a delayed message of a topic: it waits, is held, or was published, which is known for a while; then `position` is where, and the
-- payload is null.
create or replace function fastpubsub.get_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    out state text,
    out due_at timestamptz,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out "position" bigint,
    out ttl_seconds integer,
    out expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    -- One statement: at one moment a message is in one of the two tables.
    select
        case when p.position is not null then 'published' when m.due_at <= h.held_until then 'held' else 'waiting' end,
        coalesce(m.due_at, p.due_at), coalesce(m.created_at, p.created_at), m.payload, m.attributes, m.ordering_key, p.position,
        m.ttl_seconds, m.expires_at
    into
        get_delayed_message.state, get_delayed_message.due_at, get_delayed_message.created_at, get_delayed_message.payload,
        get_delayed_message.attributes, get_delayed_message.ordering_key, get_delayed_message.position,
        get_delayed_message.ttl_seconds, get_delayed_message.expires_at
    from fastpubsub.heads as h
    left join fastpubsub.delayed_messages as m on m.topic_key = h.topic_key and m.delayed_key = p_delayed_key
    left join fastpubsub.fired_messages as p on p.topic_key = h.topic_key and p.delayed_key = p_delayed_key and p.position is not null
    where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif due_at is null then
        state := null;
    end if;
end;
$$;
