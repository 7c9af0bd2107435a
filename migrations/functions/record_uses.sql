-- Says that somebody pulled these subscriptions, or tried to. Only those that expire without it are noted, twice a minute at most.
create or replace function fastpubsub.record_uses(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    if not exists (select from fastpubsub.subscription_uses) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    -- One after the other, so that they do not wait for each other's rows.
    perform fastpubsub.lock_job('expire_subscriptions', true);
    update fastpubsub.subscription_uses as u set used_at = v_now
    from unnest(p_topic_keys, p_subscription_keys) as k (topic_key, subscription_key)
    where
        u.topic_key = k.topic_key and u.subscription_key = k.subscription_key and u.used_at < v_now - interval '30 seconds';
end;
$$;
