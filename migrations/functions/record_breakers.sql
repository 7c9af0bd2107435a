-- Writes what became of the breakers of endpoints that a process holds: failures in a row, 0 for one that is closed, and in how many
-- seconds an open one tries again. One that is closed already is not written.
create or replace function fastpubsub.record_breakers(
    p_process bigint,
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_failures integer [],
    p_seconds double precision [],
    p_reasons text [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_next_try_at timestamptz [] := array(
        select v_now + make_interval(secs => u.seconds) from unnest(p_seconds) with ordinality as u (seconds, place) order by u.place
    );
begin
    perform fastpubsub.begin_call(false);
    update fastpubsub.endpoints as e set
        breaker_opened_at = case when u.failures > 0 then coalesce(e.breaker_opened_at, v_now) end,
        failures = nullif(u.failures, 0),
        next_try_at = case when u.failures > 0 then u.next_try_at end,
        last_failure = case when u.failures > 0 then u.reason end
    from
        unnest(p_topic_keys, p_subscription_keys, p_failures, v_next_try_at, p_reasons)
        as u (topic_key, subscription_key, failures, next_try_at, reason)
    where
        e.topic_key = u.topic_key and e.subscription_key = u.subscription_key and e.holder = p_process
        and (u.failures > 0 or e.failures is not null);
end;
$$;
