-- Whether a message passes a filter. A filter on nothing but attributes does not read the payload.
create or replace function fastpubsub.passes_filter(p_payload json, p_attributes jsonb, p_path jsonpath) returns boolean
language sql immutable as $$
    select jsonb_path_exists(
        case when p_path::text like 'strict $"attributes"%' then 'null' else p_payload::jsonb end, p_path,
        jsonb_build_object('attributes', p_attributes), true
    ) is true;
$$;
