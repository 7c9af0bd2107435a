-- Turns {"field": [v1, v2]} into a strict jsonpath (lax would look inside arrays), or into null for a filter that every message passes.
create or replace function fastpubsub.compile_filter(p_filter json) returns jsonpath
language plpgsql immutable as $$
declare
    v_field record;
    v_value record;
    v_fields text[] := '{}';
    v_values text[];
    v_names text[] := '{}';
    v_count integer := 0;
begin
    if p_filter is null or json_typeof(p_filter) = 'null' then
        return null;
    end if;
    if json_typeof(p_filter) <> 'object' then
        raise exception using errcode = 'FP422', message = 'a filter must be an object that maps field names to lists of values';
    end if;
    for v_field in select f.key, f.value from json_each(p_filter) as f loop
        if v_field.key = any(v_names) then
            raise exception using errcode = 'FP422', message = format('the filter names the field %s twice', to_json(v_field.key));
        end if;
        v_names := v_names || v_field.key;
        if json_typeof(v_field.value) <> 'array' or json_array_length(v_field.value) = 0 then
            raise exception using
                errcode = 'FP422',
                message = format('the filter of the field %s must be a list of at least one value', to_json(v_field.key));
        end if;
        v_values := '{}';
        for v_value in select e.value from json_array_elements(v_field.value) as e loop
            if json_typeof(v_value.value) not in ('string', 'number', 'boolean') then
                raise exception using
                    errcode = 'FP422',
                    message = format('the filter of the field %s takes only strings, numbers and booleans', to_json(v_field.key));
            end if;
            v_values := v_values || format('@.%s == %s', to_json(v_field.key), v_value.value::jsonb);
        end loop;
        v_count := v_count + cardinality(v_values);
        v_fields := v_fields || ('(' || array_to_string(v_values, ' || ') || ')');
    end loop;
    if cardinality(v_fields) > 100 or v_count > 1000 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 100 fields and 1000 values';
    end if;
    if v_count = 0 then
        return null;
    end if;
    return ('strict $ ? (' || array_to_string(v_fields, ' && ') || ')')::jsonpath;
end;
$$;
