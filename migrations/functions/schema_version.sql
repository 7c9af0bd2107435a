-- What tells schemas of a topic apart: a hash of the text, so that an older one that comes back is the same again; 0 for none.
create or replace function fastpubsub.schema_version(p_schema json) returns bigint
language plpgsql immutable as $$
begin
    return case when p_schema is null then 0 else coalesce(nullif(hashtextextended(p_schema::text, 0), 0), 1) end;
end;
$$;
