-- Returns of topics that were silent for p_seconds, but published within the last day, and of the named subscriptions that were silent for
-- p_consumer_seconds, in how many minutes of that day something was published, or delivered; the time from the first to the last of them,
-- and the longest pause in it; and since when nothing was. At most p_limit topics, those that fell silent last.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer, and p_created_at when the newest message of each of them was
-- published, so that nothing is read but the history.
create or replace function fastpubsub.list_rhythms(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_seconds integer default 600,
    p_limit integer default 100,
    p_consumer_seconds integer default 300,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null,
    p_created_at timestamptz [] default null
) returns table (
    topic_id text,
    subscription_id text,
    minutes bigint,
    lasted_seconds bigint,
    longest_pause_seconds bigint,
    silent_since timestamptz
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from bigint := floor(extract(epoch from v_now))::bigint - 86400;
    v_topic record;
    v_created_at timestamptz;
    v_ids text [];
    v_keys bigint [];
    v_times timestamptz [];
begin
    if p_created_at is not null then
        select array_agg(t.id), array_agg(t.topic_key), array_agg(u.created_at) into v_ids, v_keys, v_times
        from unnest(p_topic_keys, p_created_at) as u (topic_key, created_at)
        inner join fastpubsub.topics as t on u.topic_key = t.topic_key
        where
            (p_topic_ids is null or t.id = any(p_topic_ids))
            and u.created_at < v_now - make_interval(secs => p_seconds) and u.created_at > v_now - interval '1 day';
    elsif p_by_topic then
        for v_topic in
            select t.id, t.topic_key from fastpubsub.topics as t
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
        loop
            select m.created_at into v_created_at from fastpubsub.messages as m
            where m.topic_key = v_topic.topic_key
            order by m.position desc limit 1;
            if v_created_at < v_now - make_interval(secs => p_seconds) and v_created_at > v_now - interval '1 day' then
                v_ids := v_ids || v_topic.id;
                v_keys := v_keys || v_topic.topic_key;
                v_times := v_times || v_created_at;
            end if;
        end loop;
    else
        select array_agg(n.id), array_agg(n.topic_key), array_agg(n.created_at) into v_ids, v_keys, v_times
        from (
            select t.id, t.topic_key, m.created_at
            from fastpubsub.topics as t
            cross join lateral (
                select m.created_at from fastpubsub.messages as m where m.topic_key = t.topic_key order by m.position desc limit 1
            ) as m
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and m.created_at < v_now - make_interval(secs => p_seconds) and m.created_at > v_now - interval '1 day'
            order by m.created_at desc
            limit p_limit
        ) as n;
    end if;
    return query
    with
    quiet as (
        select m.id, m.topic_key, m.created_at from unnest(v_ids, v_keys, v_times) as m (id, topic_key, created_at)
        order by m.created_at desc
        limit p_limit
    ),
    objects as (
        select t.id as topic_id, null::text as subscription_id, t.topic_key, 0::bigint as subscription_key, t.created_at as silent_since
        from quiet as t
        union all
        select t.id, s.id, s.topic_key, s.subscription_key, null
        from unnest(p_subscription_ids) as i (id)
        inner join fastpubsub.subscriptions as s on s.id = i.id
        inner join fastpubsub.topics as t on t.topic_key = s.topic_key
        where not exists (
            select from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at)
                >= (s.subscription_key, 5, floor(extract(epoch from v_now))::bigint - p_consumer_seconds)
                and (h.subscription_key, h.interval_seconds) <= (s.subscription_key, 5) and h.delivered > 0
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        )
    )
    select
        o.topic_id, o.subscription_id, r.minutes, r.lasted_seconds, r.longest_pause_seconds, coalesce(o.silent_since, to_timestamp(r.ended))
    from objects as o
    cross join lateral (
        select
            count(*) as minutes, (max(a.minute) - min(a.minute)) * 60 as lasted_seconds,
            coalesce(max(a.pause) * 60, 0) as longest_pause_seconds, max(a.ended) as ended
        from (
            select m.minute, m.minute - lag(m.minute) over (order by m.minute) as pause, m.ended
            from (
                select h.at / 60 as minute, max(h.at + h.interval_seconds) as ended
                from (
                    select h.* from fastpubsub.history as h
                    where
                        h.topic_key = o.topic_key
                        and (h.subscription_key, h.interval_seconds, h.at) >= (o.subscription_key, 5, v_from)
                        and (h.subscription_key, h.interval_seconds) <= (o.subscription_key, 60)
                    order by h.subscription_key, h.interval_seconds, h.at
                    offset 0
                ) as h
                where h.at >= v_from and case when o.subscription_key = 0 then h.published else h.delivered end > 0
                group by h.at / 60
            ) as m
        ) as a
    ) as r
    where r.minutes > 0;
end;
$$;
