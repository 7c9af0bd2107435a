-- Returns how many messages came to these subscriptions, and how many were delivered or filtered out, in the first and in the second half
-- of the last p_seconds that are over. It leaves out younger ones: the history does not say what came before they were made.
create or replace function fastpubsub.list_flows(p_ids text [], p_seconds integer default 300, p_now timestamptz default null)
returns table (subscription_id text, came_before bigint, went_before bigint, came bigint, went bigint)
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
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / 5 * 5;
    v_from bigint := v_to - p_seconds;
    v_half bigint := v_to - p_seconds / 2;
begin
    return query
    select
        s.id, coalesce(t.before, 0), coalesce(o.before, 0), coalesce(t.after, 0), coalesce(o.after, 0)
    from unnest(p_ids) as i (id)
    inner join fastpubsub.subscriptions as s on s.id = i.id
    cross join lateral (
        select sum(h.published) filter (where h.at < v_half) as before, sum(h.published) filter (where h.at >= v_half) as after
        from (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (0, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (0, 5, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
    ) as t
    cross join lateral (
        select
            sum(h.delivered + h.filtered) filter (where h.at < v_half) as before,
            sum(h.delivered + h.filtered) filter (where h.at >= v_half) as after
        from (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (s.subscription_key, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (s.subscription_key, 5, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
    ) as o
    where s.created_at < to_timestamp(v_from);
end;
$$;
