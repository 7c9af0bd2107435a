-- Locks the head of a topic as publishing does, and checks the version of the schema; null is any.
create or replace function fastpubsub.lock_topic(p_topic_key bigint, p_schema_version bigint) returns void
language plpgsql volatile as $$
declare
    v_schema_version bigint;
begin
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
end;
$$;
