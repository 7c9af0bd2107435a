-- Returns the schema that payloads of a topic must match now, and its version.
create or replace function fastpubsub.get_schema(p_topic_key bigint, out schema json, out schema_version bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select h.schema, h.schema_version into get_schema.schema, get_schema.schema_version
    from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
end;
$$;
