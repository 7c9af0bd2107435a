create or replace function fastpubsub.require_subscription(p_topic_key bigint, p_subscription_key bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
end;
$$;
