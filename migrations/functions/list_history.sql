-- Returns the intervals from p_from to before p_to (Unix time) that are over, each with the sums of topics (`published`) and of
-- subscriptions (the rest); null is all of them. The intervals of 5 seconds last an hour; those of 60 seconds a day.
create or replace function fastpubsub.list_history(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_interval_seconds integer,
    p_from bigint default null,
    p_to bigint default null,
    p_now timestamptz default null
) returns table (
    at bigint,
    published bigint,
    delivered bigint,
    acked bigint,
    nacked bigint,
    rejected bigint,
    expired bigint,
    dead_lettered bigint,
    filtered bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / p_interval_seconds * p_interval_seconds;
    v_from bigint := v_to - case p_interval_seconds when 5 then 3600 else 86400 end;
begin
    v_from := greatest(p_from / p_interval_seconds * p_interval_seconds, v_from);
    v_to := least(p_to, v_to);
    return query
    with
    sources as (
        select t.topic_key, 0::bigint as subscription_key, true as is_topic from fastpubsub.topics as t where t.id = any(p_topic_ids)
        union all
        select 0, 0, true where p_topic_ids is null
        union all
        select s.topic_key, s.subscription_key, false from fastpubsub.subscriptions as s where s.id = any(p_subscription_ids)
        union all
        select 0, 0, false where p_subscription_ids is null
    ),
    counted as (
        select
        h.at / p_interval_seconds * p_interval_seconds as at,
        coalesce(sum(h.published) filter (where s.is_topic), 0)::bigint as published,
        coalesce(sum(h.delivered) filter (where not s.is_topic), 0)::bigint as delivered,
        coalesce(sum(h.acked) filter (where not s.is_topic), 0)::bigint as acked,
        coalesce(sum(h.nacked) filter (where not s.is_topic), 0)::bigint as nacked,
        coalesce(sum(h.rejected) filter (where not s.is_topic), 0)::bigint as rejected,
        coalesce(sum(h.expired) filter (where not s.is_topic), 0)::bigint as expired,
        coalesce(sum(h.dead_lettered) filter (where not s.is_topic), 0)::bigint as dead_lettered,
        coalesce(sum(h.filtered) filter (where not s.is_topic), 0)::bigint as filtered
        from sources as s
        cross join lateral (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (s.subscription_key, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (s.subscription_key, p_interval_seconds, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
        where h.at >= v_from and h.at < v_to
        group by 1
    )
    select
        g.at, coalesce(c.published, 0), coalesce(c.delivered, 0), coalesce(c.acked, 0), coalesce(c.nacked, 0), coalesce(c.rejected, 0), coalesce(c.expired, 0), coalesce(c.dead_lettered, 0), coalesce(c.filtered, 0)
    from generate_series(v_from, v_to - 1, p_interval_seconds) as g (at)
    left join counted as c on g.at = c.at
    order by g.at;
end;
$$;
