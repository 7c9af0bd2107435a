-- Appends to a topic. The payloads get the positions first_position, first_position + 1, … and one creation time (to
-- the millisecond, as message ids carry it). The row lock on the head, held to the commit, makes every position visible
-- before the next is given out. p_schema_version is the version of the topic's schema that the payloads were checked
-- by, 0 for no schema; when it is not the current one, FP428 is raised and nothing is stored. Null: the payloads were
-- accepted earlier, and no backlog is too long for them. Without p_ordering_keys no message has one. A message expires
-- at its p_expires_at, or its p_ttl_seconds after its creation; with null in both, never.
create or replace function fastpubsub.publish_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    p_ordering_keys text [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_position bigint,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_has_max_backlog boolean;
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
    created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select m.position + 1, greatest(publish_messages.created_at, m.created_at)
    into publish_messages.first_position, publish_messages.created_at
    from fastpubsub.messages as m
    where m.topic_key = p_topic_key
    order by m.position desc
    limit 1;
    if not found then
        first_position := 1;
        created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    end if;
    if v_has_max_backlog and p_schema_version is not null then
        perform fastpubsub.require_room(p_topic_key, publish_messages.first_position - 1, cardinality(p_payloads));
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_key, publish_messages.first_position + u.ordinal - 1, publish_messages.created_at, u.payload, u.attributes,
        p_ordering_keys[u.ordinal],
        coalesce(
            p_expires_at[u.ordinal], publish_messages.created_at + make_interval(secs => p_ttl_seconds[u.ordinal])
        )
    from unnest(p_payloads, p_attributes) with ordinality as u (payload, attributes, ordinal);
    if p_ordering_keys is not null then
        perform fastpubsub.store_keys(p_topic_key, publish_messages.first_position, p_ordering_keys);
    end if;
end;
$$;
