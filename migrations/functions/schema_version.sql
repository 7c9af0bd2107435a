-- Returns a hash of the text, which tells the schemas of a topic apart: an older schema that comes back has its old version again. Returns
-- 0 for no schema.
create or replace function fastpubsub.schema_version(p_schema json) returns bigint
language plpgsql immutable as $$
begin
    return case when p_schema is null then 0 else coalesce(nullif(hashtextextended(p_schema::text, 0), 0), 1) end;
end;
$$;
