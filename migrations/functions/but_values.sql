-- Returns what `anything-but` negates: each of its scalars, or each of the texts of its operator as an object of their own.
create or replace function fastpubsub.but_values(p_operand json) returns setof json
language plpgsql immutable as $$
declare
    v_operator text;
    v_operand json := p_operand;
begin
    if json_typeof(p_operand) = 'object' and (select count(*) from json_each(p_operand)) = 1 then
        select o.key, o.value into v_operator, v_operand from json_each(p_operand) as o;
    end if;
    if json_typeof(v_operand) <> 'array' then
        v_operand := json_build_array(v_operand);
    end if;
    if
        json_array_length(v_operand) = 0 or v_operator not in ('prefix', 'suffix', 'equals-ignore-case', 'wildcard', 'cidr')
        or exists (
            select from json_array_elements(v_operand) as e (value)
            where json_typeof(e.value) in ('array', 'object') or (v_operator is not null and json_typeof(e.value) <> 'string')
        )
    then
        raise exception using
            errcode = 'FP422', message = format('"anything-but" does not take %s', left(p_operand::text, 100));
    end if;
    return query
    select case when v_operator is null then e.value else json_build_object(v_operator, e.value) end
    from json_array_elements(v_operand) as e (value);
end;
$$;
