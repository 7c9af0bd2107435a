-- Lets a subscription hand out nothing, or resumes it; twice is the same as once. What consumers hold they can settle as always.
create or replace function fastpubsub.pause_subscription(
    p_id text,
    p_paused boolean,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.cursors as c set
        paused_at = case when p_paused then coalesce(c.paused_at, p_now, clock_timestamp()) end
    from fastpubsub.subscriptions as s
    where s.id = p_id and c.topic_key = s.topic_key and c.subscription_key = s.subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
end;
$$;
