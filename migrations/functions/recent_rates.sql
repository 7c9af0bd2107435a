-- Returns what happened per second over the last minute that is over, to a topic (p_subscription_key 0), a subscription, or the server
-- (0, 0).
create or replace function fastpubsub.recent_rates(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_now timestamptz default null,
    out published double precision,
    out delivered double precision,
    out acked double precision,
    out nacked double precision,
    out rejected double precision,
    out expired double precision,
    out dead_lettered double precision,
    out filtered double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / 5 * 5;
begin
    select
        coalesce(sum(h.published), 0) / 60.0,
        coalesce(sum(h.delivered), 0) / 60.0,
        coalesce(sum(h.acked), 0) / 60.0,
        coalesce(sum(h.nacked), 0) / 60.0,
        coalesce(sum(h.rejected), 0) / 60.0,
        coalesce(sum(h.expired), 0) / 60.0,
        coalesce(sum(h.dead_lettered), 0) / 60.0,
        coalesce(sum(h.filtered), 0) / 60.0
    into
        recent_rates.published,
        recent_rates.delivered,
        recent_rates.acked,
        recent_rates.nacked,
        recent_rates.rejected,
        recent_rates.expired,
        recent_rates.dead_lettered,
        recent_rates.filtered
    from (
        select h.* from fastpubsub.history as h
        where
            h.topic_key = p_topic_key
            and (h.subscription_key, h.interval_seconds, h.at) >= (p_subscription_key, 5, v_to - 60)
            and (h.subscription_key, h.interval_seconds, h.at) < (p_subscription_key, 5, v_to)
        -- With sorting off, only the index by topic has this order.
        order by h.subscription_key, h.interval_seconds, h.at
        offset 0
    ) as h;
end;
$$;
