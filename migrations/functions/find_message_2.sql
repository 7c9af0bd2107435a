-- A message of a topic, without a lease; of one that was trimmed the copy that a dead letter has. `last` is the newest position; a message
-- at or below it without a payload was trimmed.
create or replace function fastpubsub.find_message_2(
    p_topic_key bigint,
    p_position bigint,
    out topic_id text,
    out last bigint,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    select t.id into find_message_2.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at
    into
        find_message_2.created_at, find_message_2.payload, find_message_2.attributes, find_message_2.ordering_key, find_message_2.expires_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if not found then
        select d.created_at, d.payload, d.attributes, d.ordering_key
        into find_message_2.created_at, find_message_2.payload, find_message_2.attributes, find_message_2.ordering_key
        from fastpubsub.subscriptions as s
        inner join fastpubsub.dead_letters as d on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.topic_key = p_topic_key and d.position = p_position
        limit 1;
    end if;
end;
$$;
