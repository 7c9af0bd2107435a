create or replace function fastpubsub.get_topic(
    p_id text,
    out topic_key bigint,
    out id text,
    out retention_seconds bigint,
    out created_at timestamptz,
    out schema json
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select t.topic_key, t.id, t.created_at into get_topic.topic_key, get_topic.id, get_topic.created_at
    from fastpubsub.topics as t where t.id = p_id;
    select h.retention_seconds, h.schema into get_topic.retention_seconds, get_topic.schema
    from fastpubsub.heads as h where h.topic_key = get_topic.topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;
