-- Counts delayed messages of all topics: that wait (an estimate above p_limit), that are held (up to p_limit), and for how many seconds
-- the first one is overdue that nobody has published. For metrics and `fastpubsub doctor`; writes nothing.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
create or replace function fastpubsub.inspect_delayed(
    p_limit integer,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null,
    out waiting bigint,
    out held bigint,
    out overdue_seconds double precision
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
    v_head record;
    v_floor record;
    v_rows bigint;
    v_due_at timestamptz;
    v_oldest timestamptz;
begin
    if p_by_topic then
        waiting := 0;
        held := 0;
        for v_head in
            select h.topic_key, h.held_after, h.held_until from fastpubsub.heads as h
            where h.has_delayed and (p_topic_keys is null or h.topic_key = any(p_topic_keys))
        loop
            select f.due_at, f.delayed_key into v_floor from fastpubsub.fired_messages as f
            where f.topic_key = v_head.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1;
            continue when not found;
            select count(*), min(m.due_at) into v_rows, v_due_at from (
                select m.due_at from fastpubsub.delayed_messages as m
                where m.topic_key = v_head.topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                order by m.due_at, m.delayed_key
                limit p_limit + 1
            ) as m;
            waiting := inspect_delayed.waiting + v_rows;
            v_oldest := least(v_oldest, v_due_at);
            select count(*) into v_rows from (
                select m.due_at from fastpubsub.delayed_messages as m
                where m.topic_key = v_head.topic_key and m.due_at > v_head.held_after and m.due_at <= v_head.held_until
                order by m.due_at, m.delayed_key
                limit p_limit
            ) as m;
            held := inspect_delayed.held + v_rows;
        end loop;
    else
        select coalesce(sum(w.waiting), 0), coalesce(sum(w.held), 0), min(w.due_at)
        into inspect_delayed.waiting, inspect_delayed.held, v_oldest
        from fastpubsub.heads as h
        cross join lateral (
            select f.due_at, f.delayed_key from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f
        cross join lateral (
            select
                (
                    select count(*) from (
                        select from fastpubsub.delayed_messages as m
                        where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
                        order by m.due_at, m.delayed_key
                        limit p_limit + 1
                    ) as m
                ) as waiting,
                (
                    select count(*) from (
                        select from fastpubsub.delayed_messages as m
                        where m.topic_key = h.topic_key and m.due_at > h.held_after and m.due_at <= h.held_until
                        order by m.due_at, m.delayed_key
                        limit p_limit
                    ) as m
                ) as held,
                (
                    select min(m.due_at) from fastpubsub.delayed_messages as m
                    where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
                ) as due_at
        ) as w
        where h.has_delayed;
    end if;
    overdue_seconds := greatest(coalesce(extract(epoch from v_now - v_oldest), 0), 0);
    if waiting > p_limit then
        select greatest(c.reltuples::bigint - inspect_delayed.held, inspect_delayed.waiting) into inspect_delayed.waiting
        from pg_class as c where c.oid = 'fastpubsub.delayed_messages'::regclass;
    end if;
end;
$$;
