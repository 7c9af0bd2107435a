-- Takes constant time in the number of messages: it deletes the names and the locked rows, and records the rest in `purges`. A topic that
-- gets the dead letters of a subscription stays.
create or replace function fastpubsub.delete_topic(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    delete from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    select c.subscription_key into v_subscription_key from fastpubsub.cursors as c where c.dead_letter_topic = p_id limit 1;
    if found then
        raise exception using
            errcode = 'FP409',
            message = format(
                'topic "%s" gets the dead letters of subscription "%s": give that another dead_letter_topic first, or none',
                p_id, (select s.id from fastpubsub.subscriptions as s where s.subscription_key = v_subscription_key)
            );
    end if;
    perform from fastpubsub.cursors as c where c.topic_key = v_topic_key order by c.subscription_key for update;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key;
    delete from fastpubsub.subscriptions as s where s.topic_key = v_topic_key;
    delete from fastpubsub.schedules as s where s.topic_key = v_topic_key;
    delete from fastpubsub.topics as t where t.topic_key = v_topic_key;
    insert into fastpubsub.purges (topic_key) values (v_topic_key);
end;
$$;
