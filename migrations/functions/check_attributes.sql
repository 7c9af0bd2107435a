-- Refuses the attributes that the server refuses. An attribute is a string of up to 1024 characters; its name has 1 to 256 characters; a
-- message has at most 100 of them.
create or replace function fastpubsub.check_attributes(p_attributes jsonb) returns void
language plpgsql stable as $$
declare
    v_count bigint;
    v_texts boolean;
    v_short boolean;
begin
    if jsonb_typeof(p_attributes) <> 'object' then
        raise exception using errcode = 'FP422', message = 'the attributes are not a JSON object';
    end if;
    select
        count(*),
        bool_and(jsonb_typeof(a.value) = 'string'),
        bool_and(length(a.key) between 1 and 256 and length(a.value #>> '{}') <= 1024)
    into v_count, v_texts, v_short
    from jsonb_each(p_attributes) as a;
    if not v_texts then
        raise exception using errcode = 'FP422', message = 'an attribute is not a string';
    elsif v_count > 100 then
        raise exception using errcode = 'FP422', message = 'there are more than 100 attributes';
    elsif not v_short then
        raise exception using
            errcode = 'FP422',
            message = 'an attribute is too long: a name has 1 to 256 characters, a value at most 1024';
    end if;
end;
$$;
