-- The first field of the filter that keeps a message out. Null for a message that passes. `actual` is the value that the payload has
-- there, when it is short enough to be shown, `actual_bytes` its size, null for none; `similar_field` is a name that differs only in case.
-- A payload that cannot be read as jsonb is not `is_readable`, and passes no filter.
create or replace function fastpubsub.deciding_field(
    p_payload json,
    p_attributes jsonb,
    p_filter json,
    p_ordering_key text default null,
    out field text,
    out expected json,
    out actual json,
    out actual_bytes integer,
    out similar_field text,
    out is_readable boolean
)
language plpgsql immutable
as $$
#variable_conflict use_column
declare
    c_shown_bytes constant integer := 1024;
    v_field record;
begin
    is_readable := true;
    if p_filter is null then
        return;
    end if;
    for v_field in select f.key, f.value from json_each(p_filter) as f loop
        if
            not fastpubsub.passes_filter(
                p_payload, p_attributes, fastpubsub.compile_filter(json_build_object(v_field.key, v_field.value)), p_ordering_key
            )
        then
            field := v_field.key;
            expected := v_field.value;
            if v_field.key = '$attributes' and json_typeof(v_field.value) = 'object' then
                actual := p_attributes;
            elsif
                v_field.key = '$message' and json_typeof(v_field.value) = 'array'
                and exists (
                    select from json_array_elements(v_field.value) as e (value) where fastpubsub.is_about_message(e.value)
                )
            then
                actual := case when p_ordering_key is not null then json_build_object('ordering_key', p_ordering_key) end;
            else
                actual := p_payload -> v_field.key;
            end if;
            actual_bytes := octet_length(deciding_field.actual::text);
            if deciding_field.actual_bytes > c_shown_bytes then
                actual := null;
            elsif deciding_field.actual_bytes is null and json_typeof(p_payload) = 'object' then
                select k.name into deciding_field.similar_field
                from json_object_keys(p_payload) as k (name)
                where lower(k.name) = lower(v_field.key) limit 1;
            end if;
            return;
        end if;
    end loop;
exception
    when data_exception or program_limit_exceeded then
        is_readable := false;
end;
$$;
