-- Returns the condition of a filter on the object `@`, which p_of_message says is a whole payload, and how many fields and values it has.
-- `attributes` is the part that `$attributes` makes, and `message` that of `$message`, if it holds nothing but objects with an
-- `ordering_key`. It calls itself for nested objects and for the alternatives of `$or`, which is a field like any other when it holds no
-- objects. Each name is written once, so the result is
-- about as long as the filter. fastpubsub/filters.py refuses the same before, and explains it.
create or replace function fastpubsub.filter_condition(
    p_filter json,
    p_depth integer,
    p_of_message boolean,
    out condition text,
    out attributes text,
    out fields integer,
    out compared integer,
    out message text
)
language plpgsql immutable as $$
#variable_conflict use_column
declare
    v_field record;
    v_part record;
    v_nested record;
    v_name text;
    v_names text [] := '{}';
    v_all text [] := '{}';
    v_any text [];
    v_values text [];
    v_of_message text [];
begin
    fields := 0;
    compared := 0;
    if p_depth > 10 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 10 levels';
    end if;
    for v_field in select f.key, f.value, json_typeof(f.value) as type from json_each(p_filter) as f loop
        v_name := to_json(v_field.key)::text;
        if v_field.key = any(v_names) then
            raise exception using errcode = 'FP422', message = format('the filter names the field %s twice', v_name);
        end if;
        v_names := v_names || v_field.key;
        fields := filter_condition.fields + 1;
        if v_field.type = 'object' then
            v_nested := fastpubsub.filter_condition(v_field.value, p_depth + 1, false);
            if p_of_message and v_field.key = '$attributes' then
                attributes := v_nested.condition;
                v_all := v_all || format('exists($attributes ? %s)', v_nested.condition);
            else
                v_all := v_all || format('exists(@.%s ? %s)', v_name, v_nested.condition);
            end if;
            fields := filter_condition.fields + v_nested.fields;
            compared := filter_condition.compared + v_nested.compared;
            continue;
        end if;
        if v_field.type <> 'array' or json_array_length(v_field.value) = 0 then
            raise exception using
                errcode = 'FP422',
                message = format('the filter of the field %s must be a list of at least one value', v_name);
        end if;
        v_any := '{}';
        v_values := '{}';
        v_of_message := '{}';
        for v_part in select e.value, json_typeof(e.value) as type from json_array_elements(v_field.value) as e loop
            compared := filter_condition.compared + 1;
            if v_field.key = '$or' and v_part.type = 'object' then
                v_nested := fastpubsub.filter_condition(v_part.value, p_depth + 1, p_of_message);
                v_any := v_any || v_nested.condition;
                fields := filter_condition.fields + v_nested.fields;
                compared := filter_condition.compared + v_nested.compared;
            elsif p_of_message and v_field.key = '$message' and fastpubsub.is_about_message(v_part.value) then
                v_nested := fastpubsub.filter_condition(v_part.value, p_depth + 1, false);
                v_any := v_any || format('exists($message ? %s)', v_nested.condition);
                v_of_message := v_of_message || v_nested.condition;
                fields := filter_condition.fields + v_nested.fields;
                compared := filter_condition.compared + v_nested.compared;
            elsif v_part.type = 'object' and v_part.value::jsonb = '{"exists": true}' then
                v_any := v_any || format('exists(@.%s)', v_name);
            elsif v_part.type = 'object' and v_part.value::jsonb = '{"exists": false}' then
                v_any := v_any || format('(exists(@.%s)) is unknown', v_name);
            else
                v_values := v_values || fastpubsub.value_condition(v_part.value);
                compared := filter_condition.compared + case
                    when v_part.type = 'object' and json_typeof(v_part.value -> 'anything-but') = 'array'
                    then json_array_length(v_part.value -> 'anything-but') else 0
                end;
            end if;
        end loop;
        if cardinality(v_of_message) = json_array_length(v_field.value) then
            message := format('(%s)', array_to_string(v_of_message, ' || '));
        end if;
        if cardinality(v_values) > 0 then
            v_any := v_any || format('exists(@.%s ? (%s))', v_name, array_to_string(v_values, ' || '));
        end if;
        v_all := v_all || format('(%s)', array_to_string(v_any, ' || '));
    end loop;
    if cardinality(v_all) = 0 then
        raise exception using errcode = 'FP422', message = 'an object of a filter must name at least one field';
    end if;
    condition := array_to_string(v_all, ' && ');
    if p_depth > 1 then
        condition := format('(%s)', filter_condition.condition);
    end if;
end;
$$;
