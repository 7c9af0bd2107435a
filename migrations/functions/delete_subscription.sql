create or replace function fastpubsub.delete_subscription(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key
    from fastpubsub.subscriptions as s where s.id = p_id;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    delete from fastpubsub.subscriptions as s where s.subscription_key = v_subscription_key;
    insert into fastpubsub.purges (topic_key, subscription_key) values (v_topic_key, v_subscription_key);
end;
$$;
