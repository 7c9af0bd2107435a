-- Lists the subscriptions with leases past their deadline, and how many messages those leases hold. Deadlines more than p_look_back_seconds
-- ago are left to earlier passes (null: none are), so that a pass does not walk over rows that others deleted.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_expired_leases(
    p_look_back_seconds double precision default null,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (topic_key bigint, subscription_key bigint, subscription_id text, expired bigint)
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_floor timestamptz := coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity');
begin
    return query
    select e.topic_key, e.subscription_key, s.id, e.expired
    from (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as expired
        from (
            select l.* from fastpubsub.leases as l
            where l.expires_at > v_floor and l.expires_at <= v_now and (p_topic_keys is null or l.topic_key = any(p_topic_keys))
            -- With sorting off, only the index by time has this order.
            order by l.expires_at
            offset 0
        ) as l
        group by l.topic_key, l.subscription_key
    ) as e
    inner join fastpubsub.subscriptions as s on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key;
end;
$$;
