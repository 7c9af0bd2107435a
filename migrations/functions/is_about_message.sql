-- Whether an object among the values of `$message` asks for the message's own ordering key. No operator has this name, so no other
-- filter does.
create or replace function fastpubsub.is_about_message(p_value json) returns boolean
language sql immutable
as $$
    select
        json_typeof(p_value) = 'object' and json_typeof(p_value -> 'ordering_key') = 'array'
        and (select count(*) from json_object_keys(p_value)) = 1;
$$;
