-- Publishes rows of the outbox of another node, as copy_outbox returns them, each once: p_keys names them, and stays until
-- forget_outbox_keys, for thirty days at least. Whoever repeats the call, because he does not know whether it was done, stores nothing
-- twice. The payloads were checked by p_schema_version of the schema, 0 for none: FP428 when it is not the current one. Returns how many
-- are in the log now that were not before, null for a topic that was deleted; those that are to come later are put aside, and not counted.
create or replace function fastpubsub.publish_outbox(
    p_topic_key bigint,
    p_keys text [],
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_due_at timestamptz [],
    p_delayed_keys bigint [],
    p_ttl_seconds integer [],
    p_expires_at timestamptz [],
    p_schema_version bigint default 0,
    p_now timestamptz default null
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
declare
    v_schema_version bigint;
    v_now timestamptz;
    v_new integer [];
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        return null;
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_new := array(
        select u.place::integer from unnest(p_keys) with ordinality as u (key, place)
        left join lateral (
            select true as is_known from fastpubsub.idempotency_keys as k
            where
                k.topic_key = p_topic_key
                and (k.client, k.key) >= ('*outbox', u.key) and (k.client, k.key) <= ('*outbox', u.key)
            order by k.client, k.key
            limit 1
        ) as k on true
        where k.is_known is null
    );
    if cardinality(v_new) = 0 then
        return 0;
    end if;
    insert into fastpubsub.idempotency_keys (topic_key, client, key, body_hash, first_position, message_count, created_at)
    select p_topic_key, '*outbox', p_keys[u.place], '', 0, 0, v_now + interval '30 days' from unnest(v_new) as u (place);
    if cardinality(v_new) < cardinality(p_keys) then
        p_payloads := array(select p_payloads[u.place] from unnest(v_new) as u (place));
        p_attributes := array(select p_attributes[u.place] from unnest(v_new) as u (place));
        p_ordering_keys := array(select p_ordering_keys[u.place] from unnest(v_new) as u (place));
        p_due_at := array(select p_due_at[u.place] from unnest(v_new) as u (place));
        p_delayed_keys := array(select p_delayed_keys[u.place] from unnest(v_new) as u (place));
        p_ttl_seconds := array(select p_ttl_seconds[u.place] from unnest(v_new) as u (place));
        p_expires_at := array(select p_expires_at[u.place] from unnest(v_new) as u (place));
    end if;
    if array_remove(p_ordering_keys, null) = '{}' then
        p_ordering_keys := null;
    end if;
    if array_remove(p_due_at, null) <> '{}' then
        perform fastpubsub.publish_and_delay(
            p_topic_key, p_payloads, p_attributes, p_ordering_keys, p_due_at, p_delayed_keys, v_now, p_ttl_seconds, p_expires_at
        );
    else
        perform fastpubsub.publish_messages(
            p_topic_key, p_payloads, p_attributes, null, v_now, p_ordering_keys, p_ttl_seconds, p_expires_at
        );
    end if;
    return cardinality(array_positions(p_due_at, null));
end;
$$;
