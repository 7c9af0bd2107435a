-- Makes one minute of the oldest intervals of 5 seconds that are older than an hour, and deletes the minutes that are older than a day.
-- Returns whether there may be more to do.
create or replace function fastpubsub.trim_history(p_limit integer default 5000, p_now timestamptz default null) returns boolean
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
    v_now bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint;
    v_minute bigint;
    v_rows bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.history as h
    where h.ctid = any(array(
        select o.ctid from fastpubsub.history as o
        where o.interval_seconds = 60 and o.at < v_now / 60 * 60 - 86400
        order by o.at
        limit p_limit
        for update skip locked
    ));
    get diagnostics v_rows = row_count;
    -- With sorting off, only the index by time has this order.
    select h.at / 60 * 60 into v_minute
    from fastpubsub.history as h
    where h.interval_seconds = 5 and h.at < v_now / 60 * 60 - 3600
    order by h.at
    limit 1;
    with old as (
        delete from fastpubsub.history as h
        where h.ctid = any(array(
            select o.ctid from fastpubsub.history as o
            where o.interval_seconds = 5 and o.at >= v_minute and o.at < v_minute + 60
            order by o.at
        ))
        returning h.*
    )
    insert into fastpubsub.history as h (topic_key, subscription_key, at, interval_seconds, published, delivered, acked, nacked, rejected, expired, dead_lettered, filtered)
    select
        o.topic_key, o.subscription_key, v_minute, 60,
        sum(o.published),
        sum(o.delivered),
        sum(o.acked),
        sum(o.nacked),
        sum(o.rejected),
        sum(o.expired),
        sum(o.dead_lettered),
        sum(o.filtered)
    from old as o
    group by o.topic_key, o.subscription_key
    order by o.topic_key desc, o.subscription_key
    on conflict (topic_key, subscription_key, interval_seconds, at) do update set
        published = h.published + excluded.published,
        delivered = h.delivered + excluded.delivered,
        acked = h.acked + excluded.acked,
        nacked = h.nacked + excluded.nacked,
        rejected = h.rejected + excluded.rejected,
        expired = h.expired + excluded.expired,
        dead_lettered = h.dead_lettered + excluded.dead_lettered,
        filtered = h.filtered + excluded.filtered;
    return v_minute is not null or v_rows >= p_limit;
end;
$$;
