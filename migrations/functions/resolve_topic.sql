create or replace function fastpubsub.resolve_topic(p_id text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
begin
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    return v_topic_key;
end;
$$;
