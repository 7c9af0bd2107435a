-- Counts delayed messages of all topics: that wait (an estimate above p_limit), that are held (up to p_limit), and for how many seconds
-- the first one is overdue that nobody has published. For metrics and `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_delayed(
    p_limit integer,
    p_now timestamptz default null,
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
begin
    select
        coalesce(sum(w.waiting), 0), coalesce(sum(w.held), 0),
        greatest(coalesce(extract(epoch from v_now - min(w.due_at)), 0), 0)
    into inspect_delayed.waiting, inspect_delayed.held, inspect_delayed.overdue_seconds
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
    if waiting > p_limit then
        select greatest(c.reltuples::bigint - inspect_delayed.held, inspect_delayed.waiting) into inspect_delayed.waiting
        from pg_class as c where c.oid = 'fastpubsub.delayed_messages'::regclass;
    end if;
end;
$$;
