-- Held by everything that inserts for a subscription.
create or replace function fastpubsub.lock_subscription(p_topic_key bigint, p_subscription_key bigint) returns fastpubsub.cursors
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_cursor fastpubsub.cursors;
begin
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    return v_cursor;
end;
$$;
