-- Returns whether PostgreSQL can read a `json` value that it has only stored so far.
create or replace function fastpubsub.is_jsonb(p_payload json) returns boolean
language plpgsql stable as $$
begin
    return jsonb_typeof(p_payload::jsonb) is not null;
exception
    when data_exception then
        return false;
end;
$$;
