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
    v_endpoint fastpubsub.endpoints;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select e.* into v_endpoint
    from fastpubsub.subscriptions as s
    inner join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    where s.id = p_id
    for no key update of e;
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
