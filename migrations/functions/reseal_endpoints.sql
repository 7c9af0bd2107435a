-- Writes what endpoints have sealed, once it is sealed with another key; not of those that have changed since they were read. Returns how
-- many. An old secret that is no longer good is null.
create or replace function fastpubsub.reseal_endpoints(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_versions bigint [],
    p_headers bytea [],
    p_secrets bytea [],
    p_old_secrets bytea []
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_resealed bigint;
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.endpoints as e set headers = u.headers, secret = u.secret, old_secret = u.old_secret
    from
        unnest(p_topic_keys, p_subscription_keys, p_versions, p_headers, p_secrets, p_old_secrets)
        as u (topic_key, subscription_key, version, headers, secret, old_secret)
    where e.topic_key = u.topic_key and e.subscription_key = u.subscription_key and e.version = u.version;
    get diagnostics v_resealed = row_count;
    return v_resealed;
end;
$$;
