-- Like publish_messages_once, for requests with at least one delayed message: p_deliver_at and p_delay_seconds say of each message when it
-- is to come, both null for now. Without an idempotency key, p_keys has null. What comes now gets the positions from first_positions on;
-- `delayed_keys` has, for all messages in their order, the keys of those that are delayed.
create or replace function fastpubsub.publish_delayed_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_deliver_at timestamptz [],
    p_delay_seconds integer [],
    p_counts integer [],
    p_clients text [],
    p_keys text [],
    p_body_hashes bytea [],
    p_window_seconds integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_positions bigint [],
    out created_at timestamptz [],
    out delayed_keys bigint []
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
    v_last bigint;
    v_stored_now integer;
    v_now timestamptz;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_stored record;
    v_due_at timestamptz [];
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
    if v_has_max_backlog then
        v_last := fastpubsub.last_position(p_topic_key);
    end if;
    for i in 1..cardinality(p_counts) loop
        select k.* into v_known from fastpubsub.idempotency_keys as k
        where
            k.topic_key = p_topic_key
            and (k.client, k.key) >= (p_clients[i], p_keys[i]) and (k.client, k.key) <= (p_clients[i], p_keys[i])
        order by k.client, k.key
        limit 1;
        if found and v_known.created_at > v_now - make_interval(secs => p_window_seconds) then
            first_positions[i] := case when v_known.body_hash = p_body_hashes[i] then v_known.first_position end;
            created_at[i] := v_known.created_at;
            delayed_keys := delayed_keys || case
                when first_positions[i] is null then array_fill(null::bigint, array[p_counts[i]])
                else v_known.delayed_keys
            end;
        else
            select array_agg(fastpubsub.due_time(u.deliver_at, u.delay_seconds, v_now) order by u.place)
            into v_due_at
            from unnest(
                p_deliver_at[v_offset + 1 : v_offset + p_counts[i]], p_delay_seconds[v_offset + 1 : v_offset + p_counts[i]]
            ) with ordinality as u (deliver_at, delay_seconds, place);
            v_stored := fastpubsub.publish_and_delay(
                p_topic_key,
                p_payloads[v_offset + 1 : v_offset + p_counts[i]],
                p_attributes[v_offset + 1 : v_offset + p_counts[i]],
                p_ordering_keys[v_offset + 1 : v_offset + p_counts[i]],
                v_due_at,
                null,
                v_now,
                p_ttl_seconds[v_offset + 1 : v_offset + p_counts[i]],
                p_expires_at[v_offset + 1 : v_offset + p_counts[i]]
            );
            first_positions[i] := v_stored.first_position;
            created_at[i] := v_stored.created_at;
            delayed_keys := delayed_keys || v_stored.delayed_keys;
            if p_keys[i] is not null then
                insert into fastpubsub.idempotency_keys as k (
                    topic_key, client, key, body_hash, first_position, message_count, created_at, delayed_keys
                ) values (
                    p_topic_key, p_clients[i], p_keys[i], p_body_hashes[i], v_stored.first_position, p_counts[i],
                    v_stored.created_at, v_stored.delayed_keys
                )
                on conflict (topic_key, client, key) do update set
                    body_hash = excluded.body_hash,
                    first_position = excluded.first_position,
                    message_count = excluded.message_count,
                    created_at = excluded.created_at,
                    delayed_keys = excluded.delayed_keys;
            end if;
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    if v_has_max_backlog then
        v_stored_now := fastpubsub.last_position(p_topic_key) - v_last;
        perform fastpubsub.require_room(p_topic_key, v_last, v_stored_now, v_stored_now < cardinality(p_payloads));
    end if;
end;
$$;
