-- As list_loads_2, of all subscriptions of a topic, by their keys.
create or replace function fastpubsub.loads_of_topic(p_topic_key bigint, p_retention_seconds bigint)
returns table (
    subscription_key bigint,
    is_filtered boolean,
    behind bigint,
    leased bigint,
    waiting bigint,
    dead bigint,
    next_created_at timestamptz,
    leased_created_at timestamptz,
    waiting_created_at timestamptz,
    died_at timestamptz,
    retention_seconds bigint,
    paused_at timestamptz,
    first_expires_at timestamptz,
    max_in_flight integer,
    at_rate_limit double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_last bigint := fastpubsub.last_position(p_topic_key);
    v_now timestamptz := clock_timestamp();
begin
    return query
    with
    leased as (
        select l.subscription_key, sum(l.last_position - l.position + 1)::bigint as messages, min(l.position) as first,
            min(l.expires_at) as expires_at
        from fastpubsub.leases as l where l.topic_key = p_topic_key group by l.subscription_key
    ),
    waiting as (
        select r.subscription_key, count(*) as messages, min(r.position) as first
        from fastpubsub.retries as r where r.topic_key = p_topic_key and r.reason <> 'put aside' group by r.subscription_key
    ),
    dead as (
        select d.subscription_key, count(*) as messages, min(d.position) as first
        from fastpubsub.dead_letters as d where d.topic_key = p_topic_key group by d.subscription_key
    )
    select
        c.subscription_key, c.filter_path is not null, greatest(v_last - n.position, 0), coalesce(l.messages, 0),
        coalesce(w.messages, 0), coalesce(d.messages, 0),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = n.position + 1),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = l.first),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = w.first),
        (
            select e.died_at from fastpubsub.dead_letters as e
            where e.topic_key = p_topic_key and e.subscription_key = c.subscription_key and e.position = d.first
        ),
        coalesce(h.retention_seconds, p_retention_seconds), c.paused_at, l.expires_at, c.max_in_flight,
        fastpubsub.rate_reached(c.rate_limit, n.full_at, v_now)
    from fastpubsub.cursors as c
    inner join fastpubsub.heads as h on h.topic_key = p_topic_key
    cross join lateral (
        select n.position, n.full_at from fastpubsub.claims as n
        where n.topic_key = p_topic_key and n.subscription_key = c.subscription_key
        order by n.sequence desc limit 1
    ) as n
    left join leased as l on c.subscription_key = l.subscription_key
    left join waiting as w on c.subscription_key = w.subscription_key
    left join dead as d on c.subscription_key = d.subscription_key
    where
        c.topic_key = p_topic_key
        and (v_last > n.position or l.messages > 0 or w.messages > 0 or d.messages > 0 or c.paused_at is not null);
end;
$$;
