-- Deletes a subscription that list_expired_subscriptions found, unless it was changed or used since.
create or replace function fastpubsub.expire_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    v_cursor := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    perform from fastpubsub.subscription_uses as u
    where
        u.topic_key = p_topic_key and u.subscription_key = p_subscription_key
        and fastpubsub.expires_at(u.used_at, v_cursor.expire_after_seconds) <= coalesce(p_now, clock_timestamp());
    if
        not found or v_cursor.paused_at is not null or v_cursor.is_pushed
        or exists (select from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key)
    then
        raise exception using errcode = 'FP409', message = 'the subscription is used again';
    end if;
    perform fastpubsub.delete_subscription(s.id) from fastpubsub.subscriptions as s where s.subscription_key = p_subscription_key;
end;
$$;
