-- Refuses the payloads that the server refuses in fastpubsub/payloads.py, with its default limits (a depth of 64, 10 MiB): those that
-- PostgreSQL, a filter or a consumer could not read later. The cheap checks miss nothing; the exact ones run only on what they suspect.
create or replace function fastpubsub.check_payload(p_payload json) returns void
language plpgsql stable as $$
declare
    v_text text := p_payload::text;
    v_outside text;
    v_problem text;
    v_deep boolean;
    v_number boolean;
begin
    v_deep := octet_length(v_text) - octet_length(translate(v_text, '{[', '')) > 64;
    v_number := v_text ~ '[eE][-+]?[0-9]{4}|[0-9.]{200}';
    if p_payload is null or json_typeof(p_payload) <> 'object' then
        v_problem := 'the payload is not a JSON object';
    elsif octet_length(v_text) > 10485760 then
        v_problem := 'the payload is larger than 10 MiB';
    elsif strpos(v_text, E'\\u0000') > 0 and strpos(replace(v_text, E'\\\\', ''), E'\\u0000') > 0 then
        v_problem := E'the payload has the escape \\u0000, which PostgreSQL cannot store; leave it out';
    elsif v_text ~ E'\\\\u[dD][89a-fA-F]' and not fastpubsub.is_jsonb(p_payload) then
        v_problem := E'escapes of surrogates in the payload, \\ud800 to \\udfff, must come in pairs';
    elsif v_deep or v_number then
        -- Every second part between quotation marks is a string.
        select string_agg(p.part, '' order by p.ordinal) into v_outside
        from unnest(string_to_array(replace(replace(v_text, E'\\\\', ''), E'\\"', ''), '"')) with ordinality as p (part, ordinal)
        where p.ordinal % 2 = 1;
        if v_deep and fastpubsub.is_deeper(v_outside, 64) then
            v_problem := 'the payload is nested deeper than 64 levels';
        elsif v_number and strpos(translate(v_outside, '123456789.', '000000000'), repeat('0', 1001)) > 0 then
            v_problem := 'the payload has a number of more than 1000 digits';
        elsif v_number and v_outside ~ '[eE][-+]?0*(1(?!000(?![0-9]))[0-9]{3}|[2-9][0-9]{3}|[1-9][0-9]{4})' then
            v_problem := 'the payload has a number with an exponent beyond ±1000';
        end if;
    end if;
    if v_problem is not null then
        raise exception using errcode = 'FP422', message = v_problem;
    end if;
end;
$$;
