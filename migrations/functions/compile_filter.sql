-- Turns a filter into a strict jsonpath (lax would look inside arrays), or into null for a filter that every message passes. Its variables
-- are `$attributes`, those of the message, and `$message`, with its ordering key; passes_filter puts it to one.
create or replace function fastpubsub.compile_filter(p_filter json) returns jsonpath
language plpgsql immutable as $$
declare
    v_compiled record;
begin
    if p_filter is null or json_typeof(p_filter) = 'null' or p_filter::text ~ '^\s*{\s*}\s*$' then
        return null;
    end if;
    if json_typeof(p_filter) <> 'object' then
        raise exception using errcode = 'FP422', message = 'a filter must be an object that maps field names to lists of values';
    end if;
    v_compiled := fastpubsub.filter_condition(p_filter, 1, true);
    if v_compiled.fields > 100 or v_compiled.compared > 1000 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 100 fields and 1000 values';
    end if;
    -- Of a filter on nothing but attributes, or the ordering key, payloads need not be read.
    if (select count(*) from json_object_keys(p_filter)) = 1 then
        if v_compiled.attributes is not null then
            return ('strict $attributes ? ' || v_compiled.attributes)::jsonpath;
        elsif v_compiled.message is not null then
            return ('strict $message ? ' || v_compiled.message)::jsonpath;
        end if;
    end if;
    return ('strict $ ? (' || v_compiled.condition || ')')::jsonpath;
end;
$$;
