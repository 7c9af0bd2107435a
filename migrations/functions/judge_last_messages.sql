-- Judges the last p_last messages of a topic by a filter, the newest first, in p_milliseconds. Returns at most p_examples of those that
-- pass and of those that do not, these with the field that decides; payloads come up to p_max_bytes together, and only p_with_content. The
-- last row has no position: it says how many messages were looked at, and how many passed.
create or replace function fastpubsub.judge_last_messages(
    p_topic_key bigint,
    p_filter json,
    p_last integer,
    p_max_bytes bigint,
    p_with_content boolean,
    p_examples integer default 5,
    p_milliseconds integer default 500
) returns table (
    message_position bigint,
    created_at timestamptz,
    payload json,
    passes boolean,
    field text,
    expected json,
    actual json,
    actual_bytes integer,
    similar_field text,
    is_readable boolean,
    looked_at integer,
    passed integer
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_message record;
    v_field record;
    v_bytes bigint := 0;
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    looked_at := 0;
    passed := 0;
    for v_message in
        select m.position, m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key
        order by m.position desc
        limit p_last
    loop
        exit when looked_at > 0 and clock_timestamp() >= v_until;
        looked_at := looked_at + 1;
        passes := v_path is null
        or fastpubsub.is_found(v_message.payload, v_message.attributes, v_path, null, null, null, v_message.ordering_key);
        passed := passed + passes::integer;
        if (case when passes then passed else looked_at - passed end) <= p_examples then
            select d.* into v_field
            from fastpubsub.deciding_field(
                v_message.payload, v_message.attributes, case when not passes then p_filter end, v_message.ordering_key
            ) as d;
            message_position := v_message.position;
            created_at := v_message.created_at;
            field := v_field.field;
            expected := v_field.expected;
            actual := v_field.actual;
            actual_bytes := v_field.actual_bytes;
            similar_field := v_field.similar_field;
            is_readable := v_field.is_readable;
            payload := null;
            if p_with_content and v_bytes + pg_column_size(v_message.payload) <= p_max_bytes then
                payload := v_message.payload;
                v_bytes := v_bytes + pg_column_size(v_message.payload);
            end if;
            return next;
        end if;
    end loop;
    message_position := null;
    payload := null;
    return next;
end;
$$;
