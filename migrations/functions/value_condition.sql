-- Returns the condition that `@` equals a scalar, or does what the one operator of an object says. A comparison with a value of another
-- type is unknown, and matches nothing; a negation has to ask for that.
create or replace function fastpubsub.value_condition(p_value json) returns text
language plpgsql immutable as $$
declare
    v_operator text;
    v_operand json;
    v_type text;
    v_operands json [];
    v_all text [] := '{}';
begin
    if json_typeof(p_value) not in ('array', 'object') then
        return format('@ == %s', p_value::jsonb);
    end if;
    if json_typeof(p_value) = 'object' and (select count(*) from json_each(p_value)) = 1 then
        select o.key, o.value, json_typeof(o.value) into v_operator, v_operand, v_type from json_each(p_value) as o;
    end if;
    if v_type = 'array' then
        v_operands := array(select json_array_elements(v_operand));
    end if;
    if v_operator = 'prefix' and v_type = 'string' then
        return format('@ starts with %s', v_operand::jsonb);
    elsif v_operator in ('suffix', 'equals-ignore-case', 'wildcard') and v_type = 'string' then
        return format('@ like_regex %s flag "s"', to_json(fastpubsub.filter_pattern(v_operator, p_value ->> v_operator)));
    elsif v_operator = 'cidr' and fastpubsub.network_pattern(p_value ->> 'cidr') is not null then
        return format('@ like_regex %s', to_json(fastpubsub.network_pattern(p_value ->> 'cidr')));
    elsif v_operator = 'numeric' and cardinality(v_operands) in (2, 4) then
        for v_at in 1..cardinality(v_operands) by 2 loop
            continue when v_operands[v_at]::text not in ('"="', '"<"', '"<="', '">"', '">="');
            continue when json_typeof(v_operands[v_at + 1]) <> 'number';
            v_all := v_all || format('@ %s %s', replace(v_operands[v_at] #>> '{}', '=', '=='), v_operands[v_at + 1]::jsonb);
        end loop;
        if cardinality(v_all) * 2 = cardinality(v_operands) then
            return replace(replace(array_to_string(v_all, ' && '), '>==', '>='), '<==', '<=');
        end if;
    elsif v_operator = 'anything-but' then
        v_all := array(select fastpubsub.value_condition(b.value) from fastpubsub.but_values(v_operand) as b (value));
        return '(@.type() != "array" && @.type() != "object"'
            || (select string_agg(format(' && (!(%1$s) || (%1$s) is unknown)', c), '') from unnest(v_all) as c) || ')';
    end if;
    raise exception using errcode = 'FP422', message = format('a filter cannot compare a value with %s', left(p_value::text, 100));
end;
$$;
