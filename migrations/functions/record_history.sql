-- Adds what a process has counted since its last call to the interval of 5 seconds that it is now: one number for each topic of
-- p_topic_ids, and of p_subscription_ids one in each of the other arrays. What was deleted meanwhile is left out, but for the sum of the
-- whole server.
create or replace function fastpubsub.record_history(
    p_topic_ids text [],
    p_published integer [],
    p_subscription_ids text [],
    p_delivered integer [],
    p_acked integer [],
    p_nacked integer [],
    p_rejected integer [],
    p_expired integer [],
    p_dead_lettered integer [],
    p_filtered integer [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_at bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / 5 * 5;
begin
    perform fastpubsub.begin_call(false);
    insert into fastpubsub.history as h (topic_key, subscription_key, at, interval_seconds, published, delivered, acked, nacked, rejected, expired, dead_lettered, filtered)
    with counted as (
        select t.topic_key, 0::bigint as subscription_key, u.published, 0 as delivered, 0 as acked, 0 as nacked, 0 as rejected,
            0 as expired, 0 as dead_lettered, 0 as filtered
        from unnest(p_topic_ids, p_published) as u (id, published)
        left join fastpubsub.topics as t on u.id = t.id
        union all
        select s.topic_key, s.subscription_key, 0, u.delivered, u.acked, u.nacked, u.rejected, u.expired, u.dead_lettered, u.filtered
        from
            unnest(
                p_subscription_ids, p_delivered, p_acked, p_nacked, p_rejected, p_expired, p_dead_lettered, p_filtered
            ) as u (id, delivered, acked, nacked, rejected, expired, dead_lettered, filtered)
        left join fastpubsub.subscriptions as s on u.id = s.id
    )
    -- All processes take the rows in the same order, and the row that all of them share last.
    select r.* from (
        select c.topic_key, c.subscription_key, v_at, 5, c.published, c.delivered, c.acked, c.nacked, c.rejected, c.expired, c.dead_lettered, c.filtered from counted as c where c.topic_key is not null
        union all
        select 0, 0, v_at, 5, sum(c.published), sum(c.delivered), sum(c.acked), sum(c.nacked), sum(c.rejected), sum(c.expired), sum(c.dead_lettered), sum(c.filtered) from counted as c having count(*) > 0
    ) as r
    order by 1 desc, 2
    on conflict (topic_key, subscription_key, interval_seconds, at) do update set
        published = h.published + excluded.published,
        delivered = h.delivered + excluded.delivered,
        acked = h.acked + excluded.acked,
        nacked = h.nacked + excluded.nacked,
        rejected = h.rejected + excluded.rejected,
        expired = h.expired + excluded.expired,
        dead_lettered = h.dead_lettered + excluded.dead_lettered,
        filtered = h.filtered + excluded.filtered;
end;
$$;
