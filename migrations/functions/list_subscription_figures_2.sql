-- Returns the metrics of the named subscriptions, each judged up to p_look messages by its filter, and per second what happened in them
-- over the last minute.
create or replace function fastpubsub.list_subscription_figures_2(
    p_ids text [],
    p_look bigint default 200,
    p_now timestamptz default null
) returns table (
    subscription_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    filtered bigint,
    estimated boolean,
    paused boolean,
    oldest_ahead_seconds double precision,
    oldest_leased_seconds double precision,
    oldest_waiting_seconds double precision,
    delivered_rate double precision,
    acked_rate double precision,
    nacked_rate double precision,
    rejected_rate double precision,
    expired_rate double precision,
    dead_lettered_rate double precision,
    filtered_rate double precision,
    ttl_expired bigint,
    held_keys bigint,
    dropped bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    return query
    select
        s.id, m.ahead, m.waiting, m.leased, m.dead, m.acked, m.filtered, m.estimated, m.paused,
        extract(epoch from v_now - m.oldest_created_at)::double precision,
        extract(epoch from v_now - m.oldest_leased_created_at)::double precision,
        extract(epoch from v_now - m.oldest_waiting_created_at)::double precision,
        r.delivered, r.acked, r.nacked, r.rejected, r.expired, r.dead_lettered, r.filtered, m.ttl_expired, m.held_keys, m.dropped
    from fastpubsub.subscriptions as s
    cross join lateral fastpubsub.subscription_metrics_2(s.topic_key, s.subscription_key, p_look) as m
    cross join lateral fastpubsub.recent_rates(s.topic_key, s.subscription_key, p_now) as r
    where s.id = any(p_ids);
end;
$$;
