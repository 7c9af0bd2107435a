-- Returns the subscriptions in which something is ahead, leased, waiting or dead, or which are paused, all at once instead of one by one:
-- for looking at the whole server. `behind` is what the log has after the cursor, which for a filter is more than what it passes. p_ids
-- holds the only ids that the caller may see, null for all. The times are those of the oldest message of each state, as far as the log has
-- it, and of the first lease that expires; `retention_seconds` is how long the topic keeps what nobody needs.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; p_topic_keys, when not null, holds the only topics
-- whose nodes answer. Without, all in one statement, with less work.
create or replace function fastpubsub.list_loads_2(
    p_ids text [],
    p_retention_seconds bigint,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
)
returns table (
    topic_id text,
    subscription_id text,
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
    v_topic record;
begin
    if p_by_topic then
        for v_topic in
            select t.topic_key, t.id, array_agg(s.subscription_key) as subscription_keys, array_agg(s.id) as ids
            from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
            where (p_ids is null or s.id = any(p_ids)) and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
            group by t.topic_key, t.id
        loop
            return query
            select
                v_topic.id, n.id, l.is_filtered, l.behind, l.leased, l.waiting, l.dead, l.next_created_at, l.leased_created_at,
                l.waiting_created_at, l.died_at, l.retention_seconds, l.paused_at, l.first_expires_at, l.max_in_flight, l.at_rate_limit
            from fastpubsub.loads_of_topic(v_topic.topic_key, p_retention_seconds) as l
            inner join unnest(v_topic.subscription_keys, v_topic.ids) as n (subscription_key, id)
                on l.subscription_key = n.subscription_key;
        end loop;
        return;
    end if;
    return query
    with
    leased as (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as messages, min(l.position) as first,
            min(l.expires_at) as expires_at
        from fastpubsub.leases as l group by l.topic_key, l.subscription_key
    ),
    waiting as (
        select r.topic_key, r.subscription_key, count(*) as messages, min(r.position) as first
        from fastpubsub.retries as r where r.reason <> 'put aside' group by r.topic_key, r.subscription_key
    ),
    dead as (
        select d.topic_key, d.subscription_key, count(*) as messages, min(d.position) as first
        from fastpubsub.dead_letters as d group by d.topic_key, d.subscription_key
    ),
    tops as (
        select t.topic_key, t.id, coalesce(h.retention_seconds, p_retention_seconds) as retention, l.position
        from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
        cross join lateral fastpubsub.last_position(t.topic_key) as l (position)
    )
    select
        t.id, s.id, c.filter_path is not null, greatest(t.position - n.position, 0), coalesce(l.messages, 0), coalesce(w.messages, 0),
        coalesce(d.messages, 0),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = n.position + 1),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = l.first),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = w.first),
        (
            select e.died_at from fastpubsub.dead_letters as e
            where e.topic_key = s.topic_key and e.subscription_key = s.subscription_key and e.position = d.first
        ),
        t.retention, c.paused_at, l.expires_at, c.max_in_flight,
        fastpubsub.rate_reached(c.rate_limit, n.full_at, clock_timestamp())
    from fastpubsub.subscriptions as s
    inner join tops as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    cross join lateral (
        select n.position, n.full_at from fastpubsub.claims as n
        where n.topic_key = s.topic_key and n.subscription_key = s.subscription_key
        order by n.sequence desc limit 1
    ) as n
    left join leased as l on s.topic_key = l.topic_key and s.subscription_key = l.subscription_key
    left join waiting as w on s.topic_key = w.topic_key and s.subscription_key = w.subscription_key
    left join dead as d on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
    where
        (p_ids is null or s.id = any(p_ids))
        and (t.position > n.position or l.messages > 0 or w.messages > 0 or d.messages > 0 or c.paused_at is not null);
end;
$$;
