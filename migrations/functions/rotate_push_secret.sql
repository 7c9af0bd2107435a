-- Signs with another secret; the previous one signs as well for p_old_seconds. Raises FP409 while two secrets are good, unless
-- p_old_seconds is 0: ending one of them unasked could end the one in use.
create or replace function fastpubsub.rotate_push_secret(
    p_id text,
    p_secret bytea,
    p_old_seconds integer,
    p_now timestamptz default null,
    out old_secret_expires_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_subscription_key bigint;
    v_endpoint fastpubsub.endpoints;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key from fastpubsub.subscriptions as s where s.id = p_id;
    if found then
        -- Whoever changes the endpoint puts a new row in its place, which is not seen by a statement that has waited for the old one.
        perform fastpubsub.lock_subscription(v_topic_key, v_subscription_key);
    end if;
    select e.* into v_endpoint from fastpubsub.endpoints as e
    where e.topic_key = v_topic_key and e.subscription_key = v_subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('there is no subscription "%s" that is pushed', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_old_seconds > 0 then
        if v_endpoint.old_secret_expires_at > v_now then
            raise exception using
                errcode = 'FP409',
                message = format('subscription "%s" already has two secrets; wait for the end of the old one, or end both with old_secret_seconds 0', p_id);
        end if;
        rotate_push_secret.old_secret_expires_at := v_now + make_interval(secs => p_old_seconds);
    end if;
    perform fastpubsub.renew_endpoint(
        v_endpoint.topic_key, v_endpoint.subscription_key, v_endpoint.settings, v_endpoint.headers, p_secret,
        case when p_old_seconds > 0 then v_endpoint.secret end, rotate_push_secret.old_secret_expires_at
    );
end;
$$;
