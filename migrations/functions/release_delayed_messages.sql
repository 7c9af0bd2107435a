-- Lets up to p_limit held messages of a topic come now, in the order of their times. Returns how many.
create or replace function fastpubsub.release_delayed_messages(
    p_topic_key bigint,
    p_limit integer,
    p_now timestamptz default null,
    out released integer
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
    v_floor fastpubsub.fired_messages;
    v_now timestamptz;
    v_held_after timestamptz;
    v_held_until timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select h.held_after, h.held_until into v_held_after, v_held_until
    from fastpubsub.heads as h
    where h.topic_key = p_topic_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_floor := fastpubsub.delayed_floor(p_topic_key, v_now);
    update fastpubsub.delayed_messages as m
    set due_at = h.due_at
    from (
        select
            m.ctid,
            greatest(v_now, v_floor.due_at) + make_interval(secs => row_number() over (order by m.due_at, m.delayed_key) / 1000000.0) as due_at
        from fastpubsub.delayed_messages as m
        where m.topic_key = p_topic_key and m.due_at > v_held_after and m.due_at <= v_held_until
        order by m.due_at, m.delayed_key
        limit p_limit
    ) as h
    where m.topic_key = p_topic_key and m.ctid = h.ctid;
    get diagnostics released = row_count;
    if released < p_limit and v_held_until is not null then
        update fastpubsub.heads as h set held_after = null, held_until = null where h.topic_key = p_topic_key;
    end if;
end;
$$;
