-- Like publish_messages, for several requests that each carry an idempotency key: p_counts is the number of payloads of each. A request
-- that was seen within the window stores nothing and gets its first answer; if its body differs, its first_position is null. The lock on
-- the head makes a repetition wait for the first request.
create or replace function fastpubsub.publish_messages_once(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_counts integer [],
    p_clients text [],
    p_keys text [],
    p_body_hashes bytea [],
    p_window_seconds integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    p_ordering_keys text [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_positions bigint [],
    out created_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_has_max_backlog boolean;
    v_now timestamptz;
    v_created_at timestamptz;
    v_next bigint;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_payloads json [] := '{}';
    v_attributes jsonb [] := '{}';
    v_ordering_keys text [] := '{}';
    v_ttl_seconds integer [] := '{}';
    v_expires_at timestamptz [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version, h.has_max_backlog into v_schema_version, v_has_max_backlog
    from fastpubsub.heads as h where h.topic_key = p_topic_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    select m.position + 1, m.created_at into v_next, v_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1;
    v_next := coalesce(v_next, 1);
    v_created_at := greatest(date_trunc('milliseconds', v_now), v_created_at);
    for i in 1..cardinality(p_keys) loop
        select k.* into v_known from fastpubsub.idempotency_keys as k
        where
            k.topic_key = p_topic_key
            and (k.client, k.key) >= (p_clients[i], p_keys[i]) and (k.client, k.key) <= (p_clients[i], p_keys[i])
        order by k.client, k.key
        limit 1;
        if found and v_known.created_at > v_now - make_interval(secs => p_window_seconds) then
            first_positions[i] := case when v_known.body_hash = p_body_hashes[i] then v_known.first_position end;
            created_at[i] := v_known.created_at;
        else
            insert into fastpubsub.idempotency_keys as k (
                topic_key, client, key, body_hash, first_position, message_count, created_at
            ) values (p_topic_key, p_clients[i], p_keys[i], p_body_hashes[i], v_next, p_counts[i], v_created_at)
            on conflict (topic_key, client, key) do update set
                body_hash = excluded.body_hash,
                first_position = excluded.first_position,
                message_count = excluded.message_count,
                created_at = excluded.created_at;
            first_positions[i] := v_next;
            created_at[i] := v_created_at;
            v_next := v_next + p_counts[i];
            v_payloads := v_payloads || p_payloads[v_offset + 1 : v_offset + p_counts[i]];
            v_attributes := v_attributes || p_attributes[v_offset + 1 : v_offset + p_counts[i]];
            v_ordering_keys := v_ordering_keys || p_ordering_keys[v_offset + 1 : v_offset + p_counts[i]];
            v_ttl_seconds := v_ttl_seconds || p_ttl_seconds[v_offset + 1 : v_offset + p_counts[i]];
            v_expires_at := v_expires_at || p_expires_at[v_offset + 1 : v_offset + p_counts[i]];
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    if v_has_max_backlog then
        perform fastpubsub.require_room(
            p_topic_key, v_next - cardinality(v_payloads) - 1, cardinality(v_payloads),
            cardinality(v_payloads) < cardinality(p_payloads)
        );
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_key, v_next - cardinality(v_payloads) + u.ordinal - 1, v_created_at, u.payload, u.attributes,
        v_ordering_keys[u.ordinal],
        coalesce(v_expires_at[u.ordinal], v_created_at + make_interval(secs => v_ttl_seconds[u.ordinal]))
    from unnest(v_payloads, v_attributes) with ordinality as u (payload, attributes, ordinal)
    where u.ordinal <= cardinality(v_payloads);
    if p_ordering_keys is not null then
        perform fastpubsub.store_keys(p_topic_key, v_next - cardinality(v_payloads), v_ordering_keys);
    end if;
end;
$$;
