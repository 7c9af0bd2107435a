-- Like publish_messages, for several topics in one transaction. p_places says for each payload which of p_topic_keys it is for; the
-- payloads of one topic follow each other, after p_offsets others. Waits for no lock: when another call is publishing to a topic at this
-- moment, or a topic is gone, or full, or its schema is another one, that topic gets null and nothing is stored in it; publish_messages
-- then gives the reason.
create or replace function fastpubsub.publish_to_topics(
    p_topic_keys bigint [],
    p_schema_versions bigint [],
    p_offsets integer [],
    p_places integer [],
    p_payloads json [],
    p_attributes jsonb [] default null,
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
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_places bigint [];
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    with locked as materialized (
        select u.place, h.has_max_backlog
        from unnest(p_topic_keys, p_schema_versions) with ordinality as u (topic_key, schema_version, place)
        inner join fastpubsub.heads as h on h.topic_key = u.topic_key and h.schema_version = u.schema_version
        for no key update of h skip locked
    )

    select array_agg(l.place) into v_places
    from locked as l
    where
        l.has_max_backlog is not true
        or fastpubsub.has_room(
            p_topic_keys[l.place], coalesce(p_offsets[l.place + 1], cardinality(p_payloads)) - p_offsets[l.place]
        );
    v_now := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select
        array_agg(case when u.place = any(v_places) then coalesce(m.position + 1, 1) end order by u.place),
        array_agg(case when u.place = any(v_places) then greatest(v_now, m.created_at) end order by u.place)
    into publish_to_topics.first_positions, publish_to_topics.created_at
    from unnest(p_topic_keys) with ordinality as u (topic_key, place)
    left join lateral (
        select m.position, m.created_at from fastpubsub.messages as m where m.topic_key = u.topic_key order by m.position desc limit 1
    ) as m on true;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_keys[u.place],
        publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place],
        publish_to_topics.created_at[u.place],
        u.payload,
        u.attributes,
        p_ordering_keys[u.ordinal],
        coalesce(
            p_expires_at[u.ordinal],
            publish_to_topics.created_at[u.place] + make_interval(secs => p_ttl_seconds[u.ordinal])
        )
    from unnest(p_payloads, p_attributes, p_places) with ordinality as u (payload, attributes, place, ordinal)
    where publish_to_topics.first_positions[u.place] is not null;
    if p_ordering_keys is not null then
        insert into fastpubsub.message_keys (topic_key, key_hash, position)
        select
            p_topic_keys[u.place], hashtextextended(u.ordering_key, 0),
            publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place]
        from unnest(p_ordering_keys, p_places) with ordinality as u (ordering_key, place, ordinal)
        where publish_to_topics.first_positions[u.place] is not null and u.ordering_key is not null;
    end if;
end;
$$;
