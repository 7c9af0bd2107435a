create or replace function fastpubsub.update_topic(
    p_id text,
    p_retention_seconds bigint default null,
    p_change_retention boolean default true,
    p_schema json default null,
    p_change_schema boolean default false
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    update fastpubsub.heads as h set
        retention_seconds = case when p_change_retention then p_retention_seconds else h.retention_seconds end,
        schema = case when p_change_schema then p_schema else h.schema end,
        schema_version = case when p_change_schema then fastpubsub.schema_version(p_schema) else h.schema_version end
    where h.topic_key = v_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;
