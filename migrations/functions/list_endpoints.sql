-- The endpoints of these subscriptions, with what is sealed; an old secret as long as it is good.
create or replace function fastpubsub.list_endpoints(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
)
returns table (
    topic_key bigint,
    subscription_key bigint,
    version bigint,
    subscription_id text,
    settings json,
    headers bytea,
    secret bytea,
    old_secret bytea,
    old_seconds double precision,
    ordered boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    return query
    select
        e.topic_key, e.subscription_key, e.version, s.id, e.settings, e.headers, e.secret,
        case when e.old_secret_expires_at > v_now then e.old_secret end,
        extract(epoch from e.old_secret_expires_at - v_now)::double precision,
        c.ordered
    from unnest(p_topic_keys, p_subscription_keys) as k (topic_key, subscription_key)
    inner join fastpubsub.endpoints as e on k.topic_key = e.topic_key and k.subscription_key = e.subscription_key
    inner join fastpubsub.subscriptions as s on e.subscription_key = s.subscription_key
    inner join fastpubsub.cursors as c on e.topic_key = c.topic_key and e.subscription_key = c.subscription_key;
end;
$$;
