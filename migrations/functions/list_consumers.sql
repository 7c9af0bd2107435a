-- Returns who holds messages of a subscription, or waits for some in a pull or a stream, ordered by id, after the id p_after. Who waits at
-- this process comes with the call. The other processes have written it; what is older than p_old_seconds is of one that is gone.
-- `seen_at` is when a consumer got the newest message that it holds, or was last seen waiting.
create or replace function fastpubsub.list_consumers(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_process bigint,
    p_consumer_ids text [],
    p_streams boolean [],
    p_seconds double precision [],
    p_after text,
    p_limit integer,
    p_old_seconds double precision default 15,
    p_now timestamptz default null
) returns table (
    consumer_id text,
    leased bigint,
    oldest_leased_at timestamptz,
    pulls bigint,
    streams bigint,
    waits_since timestamptz,
    seen_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    with
    present as (
        select
            l.consumer_id, l.last_position - l.position + 1 as leased, l.leased_at, null::boolean as is_stream,
            null::timestamptz as since, l.leased_at as seen_at
        from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        union all
        select w.consumer_id, 0, null, w.is_stream, w.since, c.seen_at
        from fastpubsub.consumers as c
        cross join lateral unnest(c.consumer_ids, c.streams, c.since) as w (consumer_id, is_stream, since)
        where
            c.topic_key = p_topic_key and c.subscription_key = p_subscription_key and c.process <> p_process
            and c.seen_at > v_now - make_interval(secs => p_old_seconds)
        union all
        select w.consumer_id, 0, null, w.is_stream, v_now - make_interval(secs => w.seconds), v_now
        from unnest(p_consumer_ids, p_streams, p_seconds) as w (consumer_id, is_stream, seconds)
    )
    select
        p.consumer_id, sum(p.leased)::bigint, min(p.leased_at), count(*) filter (where not p.is_stream), count(*) filter (where p.is_stream),
        min(p.since), max(p.seen_at)
    from present as p
    where p_after is null or p.consumer_id collate "C" > p_after
    group by p.consumer_id
    order by p.consumer_id collate "C"
    limit p_limit;
end;
$$;
