-- Whether a message passes the filter p_path and has what is searched for: one of p_values in the first mebibyte of its payload ('text';
-- ASCII letters have no case), as its top-level field p_name ('payload'), or as its attribute p_name ('attributes'). A payload that cannot
-- be read as jsonb passes no filter and has no field.
create or replace function fastpubsub.is_found(
    p_payload json,
    p_attributes jsonb,
    p_path jsonpath,
    p_search_in text,
    p_name text,
    p_values text [],
    p_ordering_key text default null
) returns boolean
language plpgsql immutable
as $$
declare
    c_searched_characters constant integer := 1048576;
    v_text text;
begin
    if p_path is not null and not fastpubsub.passes_filter(p_payload, p_attributes, p_path, p_ordering_key) then
        return false;
    end if;
    case p_search_in
        when 'text' then
            v_text := lower(substr(p_payload::text, 1, c_searched_characters) collate "C");
            return exists (select from unnest(p_values) as v (value) where strpos(v_text, lower(v.value collate "C")) > 0);
        when 'payload' then
            return coalesce(p_payload::jsonb -> p_name = any(p_values::jsonb []), false);
        when 'attributes' then
            return coalesce(p_attributes ->> p_name = any(p_values), false);
        else
            return true;
    end case;
exception
    when data_exception or program_limit_exceeded then
        return false;
end;
$$;
