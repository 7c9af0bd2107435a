-- Refuses a topic for the dead letters of a subscription of p_topic_id; null and '' are none. Dead letters may not
-- match the schema of the topic, so one that has a schema is refused; with one that it gets later, the relay keeps
-- apart what does not match.
create or replace function fastpubsub.require_dead_letter_topic(p_topic_id text, p_dead_letter_topic text) returns void
language plpgsql stable
as $$
declare
    v_topic_key bigint;
    v_schema_version bigint;
begin
    if p_dead_letter_topic is null or p_dead_letter_topic = '' then
        return;
    elsif p_dead_letter_topic = p_topic_id then
        raise exception using
            errcode = 'FP422',
            message = 'dead_letter_topic is the topic of the subscription, which would get its dead letters itself: name another one';
    end if;
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_dead_letter_topic;
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using
            errcode = 'FP404', message = format('dead_letter_topic: topic "%s" does not exist', p_dead_letter_topic);
    elsif v_schema_version <> 0 then
        raise exception using
            errcode = 'FP422',
            message = format(
                'dead_letter_topic: topic "%s" has a JSON Schema, and dead letters may not match it: name a topic without one',
                p_dead_letter_topic
            );
    end if;
end;
$$;
