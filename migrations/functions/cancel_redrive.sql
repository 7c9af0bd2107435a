-- Ends a redrive that runs; one that has ended stays as it is. Returns whether there is such a redrive.
create or replace function fastpubsub.cancel_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint
) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_now := clock_timestamp();
    update fastpubsub.redrives as r set state = 'cancelled', ended_at = v_now
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key
        and r.state = 'running';
    return found or exists (
        select from fastpubsub.redrives as r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key
    );
end;
$$;
