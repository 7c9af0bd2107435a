create or replace function fastpubsub.create_topic(
    p_id text,
    p_retention_seconds bigint default null,
    p_schema json default null,
    p_now timestamptz default null,
    out topic_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    insert into fastpubsub.topics as t (id, created_at) values (p_id, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning t.topic_key, t.created_at into create_topic.topic_key, create_topic.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('topic "%s" already exists', p_id);
    end if;
    -- A message id has 32 bits for the topic.
    if create_topic.topic_key >= 4294967296 then
        raise exception using errcode = 'FP422', message = 'this database has created all 4294967295 topics that it ever can';
    end if;
    insert into fastpubsub.heads (topic_key, retention_seconds, schema, schema_version)
    values (create_topic.topic_key, p_retention_seconds, p_schema, fastpubsub.schema_version(p_schema));
end;
$$;
