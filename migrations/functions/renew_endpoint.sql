-- Puts an endpoint in the place of the one that its subscription may have, with a new version: whoever pushes there reads it anew. Where
-- topics are on several nodes, an update could not make the version.
create or replace function fastpubsub.renew_endpoint(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_settings json,
    p_headers bytea,
    p_secret bytea,
    p_old_secret bytea default null,
    p_old_secret_expires_at timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old fastpubsub.endpoints;
begin
    delete from fastpubsub.endpoints as e
    where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    returning e.* into v_old;
    insert into fastpubsub.endpoints (
        topic_key, subscription_key, settings, headers, secret, old_secret, old_secret_expires_at, holder, breaker_opened_at, failures,
        next_try_at, last_failure
    ) values (
        p_topic_key, p_subscription_key, p_settings, p_headers, p_secret, p_old_secret, p_old_secret_expires_at, v_old.holder,
        v_old.breaker_opened_at, v_old.failures, v_old.next_try_at, v_old.last_failure
    );
end;
$$;
