-- For applications: publishes from the caller's own transaction, so that the message exists exactly if the transaction
-- commits. The relay of a server moves it into the log within moments of the commit; messages of one transaction keep
-- the order of the calls. Takes no lock that others wait for and does not change the caller's settings. With deliver_at
-- the message comes at that time, and the id of the delayed message is returned; otherwise null. A message that nobody
-- has taken by expires_at, or ttl_seconds after it was published (a delayed one: after it has come), is not delivered
-- any more. The rules of the server hold: an unknown topic raises FP404; FP422 is raised for a payload that is not a
-- JSON object or could not be read later, for attributes that are not an object of strings, for an ordering key that
-- does not have 1 to 128 characters, for a time more than a year ahead, and for a time to live that is not 1 to
-- 31536000 seconds or comes with expires_at. A JSON Schema of the topic is checked by the relay, which keeps what does
-- not match it apart.
create or replace function fastpubsub.publish(
    topic text,
    payload json,
    attributes jsonb default null,
    ordering_key text default null,
    deliver_at timestamptz default null,
    ttl_seconds integer default null,
    expires_at timestamptz default null
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_delayed_key bigint;
begin
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = publish.topic;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('topic "%s" does not exist', left(publish.topic, 128)),
            hint = 'Create it first, or correct its name.';
    end if;
    perform fastpubsub.check_payload(publish.payload);
    if publish.attributes in ('null', '{}') then
        publish.attributes := null;
    elsif publish.attributes is not null then
        perform fastpubsub.check_attributes(publish.attributes);
    end if;
    if length(publish.ordering_key) not between 1 and 128 then
        raise exception using errcode = 'FP422', message = 'an ordering key has 1 to 128 characters';
    end if;
    if publish.ttl_seconds is not null and publish.expires_at is not null then
        raise exception using errcode = 'FP422', message = 'a message has ttl_seconds or expires_at; give one of them';
    elsif publish.ttl_seconds not between 1 and 31536000 then
        raise exception using errcode = 'FP422', message = 'ttl_seconds must be 1 to 31536000, which is a year';
    end if;
    if publish.deliver_at > clock_timestamp() + interval '366 days' then
        raise exception using errcode = 'FP422', message = 'a message cannot be delayed for more than a year';
    elsif publish.deliver_at is not null then
        v_delayed_key := nextval('fastpubsub.delayed_messages_delayed_key_seq');
    end if;
    insert into fastpubsub.outbox (
        transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
    )
    values (
        pg_current_xact_id(), v_topic_key, publish.payload, publish.attributes, publish.ordering_key, publish.deliver_at,
        v_delayed_key, publish.ttl_seconds, publish.expires_at
    );
    return 'delayed-' || v_delayed_key;
end;
$$;

revoke execute on function fastpubsub.publish(text, json, jsonb, text, timestamptz, integer, timestamptz) from public;
