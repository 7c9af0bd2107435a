-- Lists the topics that have due messages, or whose floor is older than p_mark_seconds, and says in how many seconds the next message
-- of any topic is due, and the next schedule among those that were due p_look_back_seconds ago at most. Writes nothing.
-- p_topic_keys: of these topics only, one after the other, for topics on several nodes.
create or replace function fastpubsub.list_due_topics(
    p_mark_seconds integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null,
    out topic_keys bigint [],
    out due_seconds double precision,
    out schedule_seconds double precision
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
    v_topic_key bigint;
    v_floor record;
    v_due_at timestamptz;
    v_next timestamptz;
begin
    if p_topic_keys is null then
        select
            array_agg(h.topic_key) filter (where d.due_at <= v_now or f.created_at <= v_now - make_interval(secs => p_mark_seconds)),
            min(d.due_at)
        into list_due_topics.topic_keys, v_next
        from fastpubsub.heads as h
        cross join lateral (
            select f.due_at, f.delayed_key, f.created_at from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f
        left join lateral (
            select m.due_at from fastpubsub.delayed_messages as m
            where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
            order by m.due_at, m.delayed_key
            limit 1
        ) as d on true
        where h.has_delayed;
    else
        for v_topic_key in
            select h.topic_key from fastpubsub.heads as h
            where h.has_delayed and h.topic_key = any(p_topic_keys)
        loop
            select f.due_at, f.delayed_key, f.created_at into v_floor from fastpubsub.fired_messages as f
            where f.topic_key = v_topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1;
            continue when not found;
            select m.due_at into v_due_at from fastpubsub.delayed_messages as m
            where m.topic_key = v_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
            order by m.due_at, m.delayed_key
            limit 1;
            if v_due_at <= v_now or v_floor.created_at <= v_now - make_interval(secs => p_mark_seconds) then
                topic_keys := list_due_topics.topic_keys || v_topic_key;
            end if;
            v_next := least(v_next, v_due_at);
        end loop;
    end if;
    due_seconds := extract(epoch from v_next - v_now);
    select extract(epoch from s.next_at - v_now) into list_due_topics.schedule_seconds
    from fastpubsub.schedules as s
    where
        s.next_at >= coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity')
        and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    order by s.next_at
    limit 1;
end;
$$;
