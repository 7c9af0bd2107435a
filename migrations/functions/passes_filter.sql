-- Whether a message passes a filter. A filter on nothing but attributes, or nothing but the ordering key, does not read the payload.
create or replace function fastpubsub.passes_filter(
    p_payload json,
    p_attributes jsonb,
    p_path jsonpath,
    p_ordering_key text default null
) returns boolean
language sql immutable as $$
    select jsonb_path_exists(
        case when p_path::text ~ '^strict \$"(attributes|message)"' then 'null' else p_payload::jsonb end, p_path,
        jsonb_build_object(
            'attributes', p_attributes,
            'message', case when p_ordering_key is null then '{}' else jsonb_build_object('ordering_key', p_ordering_key) end
        ),
        true
    ) is true;
$$;
