-- Lets a subscription hand out nothing, or resumes it; twice is the same as once. What consumers hold they can settle as always.
create or replace function fastpubsub.pause_subscription(
    p_id text,
    p_paused boolean,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_keys record := fastpubsub.resolve_subscription(p_id);
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.cursors as c
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    update fastpubsub.cursors as c set paused_at = case when p_paused then coalesce(c.paused_at, v_now) end
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key;
end;
$$;
