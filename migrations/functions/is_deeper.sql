-- Returns whether JSON without its strings is nested deeper than p_levels levels: each turn takes the innermost level away.
create or replace function fastpubsub.is_deeper(p_outside text, p_levels integer) returns boolean
language plpgsql immutable as $$
declare
    v_brackets text := translate(p_outside, E'{}0123456789+-.eEtrufalsn,: \t\n\r', '[]');
begin
    for i in 1..p_levels loop
        v_brackets := replace(v_brackets, '[]', '');
        exit when v_brackets = '';
    end loop;
    return v_brackets <> '';
end;
$$;
