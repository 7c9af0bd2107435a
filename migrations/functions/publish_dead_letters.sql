-- For a caller that holds the cursor and has made these messages dead letters: publishes copies of them to a topic, by the outbox, so that
-- no lock of that topic is needed here. A message that is such a copy itself is not published again, so no two subscriptions can send one
-- around for ever. A topic that is gone gets none.
create or replace function fastpubsub.publish_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_topic_id text
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_target bigint;
    v_subscription_id text;
    v_position bigint;
    v_letter fastpubsub.dead_letters;
begin
    select t.topic_key into v_target from fastpubsub.topics as t where t.id = p_topic_id;
    if not found then
        return;
    end if;
    select s.id into v_subscription_id from fastpubsub.subscriptions as s where s.subscription_key = p_subscription_key;
    for v_position in select p from unnest(p_positions) as p order by p loop
        select d.* into v_letter from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
        if v_letter.attributes is null or not v_letter.attributes ? 'dead_letter_message_id' then
            insert into fastpubsub.outbox (transaction_id, topic_key, payload, attributes, ordering_key)
            values (
                pg_current_xact_id(), v_target, v_letter.payload,
                coalesce(v_letter.attributes, '{}') || jsonb_build_object(
                    'dead_letter_message_id', fastpubsub.message_id(p_topic_key, v_position, v_letter.created_at),
                    'dead_letter_subscription_id', v_subscription_id,
                    'dead_letter_reason', left(v_letter.reason, 1024),
                    'dead_letter_delivery_attempts', v_letter.attempts::text
                ),
                v_letter.ordering_key
            );
        end if;
    end loop;
end;
$$;
