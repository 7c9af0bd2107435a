-- Deletes up to p_limit rows of `claims` per subscription that are no longer the newest, and idempotency keys past their window. So long it
-- is also known where delayed messages came in the log.
create or replace function fastpubsub.trim_claims(
    p_topic_key bigint,
    p_window_seconds integer,
    p_limit integer default 5000,
    p_now timestamptz default null
) returns integer
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
    v_subscription record;
    v_low bigint;
    v_high bigint;
    v_middle bigint;
    v_newest bigint;
    v_rows integer;
    v_trimmed integer := 0;
    v_window timestamptz := coalesce(p_now, clock_timestamp()) - make_interval(secs => p_window_seconds);
begin
    perform fastpubsub.begin_call(false);
    for v_subscription in select c.subscription_key from fastpubsub.cursors as c where c.topic_key = p_topic_key loop
        select c.sequence into v_newest from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_low := 1;
        v_high := v_newest;
        while v_low < v_high loop
            v_middle := (v_low + v_high) / 2;
            if
                exists (
                    select from fastpubsub.claims as c
                    where
                        c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
                        and c.sequence = v_middle
                )
            then
                v_high := v_middle;
            else
                v_low := v_middle + 1;
            end if;
        end loop;
        delete from fastpubsub.claims as c
        where
            c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
            and c.sequence >= v_low and c.sequence < least(v_newest, v_low + p_limit);
        get diagnostics v_rows = row_count;
        v_trimmed := v_trimmed + v_rows;
    end loop;
    delete from fastpubsub.idempotency_keys as k
    using (
        select o.ctid from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and o.created_at < v_window
        order by o.created_at
        limit p_limit
        for update skip locked
    ) as o
    where k.topic_key = p_topic_key and k.ctid = o.ctid;
    get diagnostics v_rows = row_count;
    v_trimmed := v_trimmed + v_rows;
    -- The newest is the floor.
    delete from fastpubsub.fired_messages as f
    using (
        select o.ctid from fastpubsub.fired_messages as o
        where
            o.topic_key = p_topic_key and o.due_at < v_window and o.created_at < v_window
            and (o.due_at, o.delayed_key) < (
                select n.due_at, n.delayed_key from fastpubsub.fired_messages as n
                where n.topic_key = p_topic_key
                order by n.due_at desc, n.delayed_key desc
                limit 1
            )
        order by o.due_at, o.delayed_key
        limit p_limit
    ) as o
    where f.topic_key = p_topic_key and f.ctid = o.ctid;
    get diagnostics v_rows = row_count;
    return v_trimmed + v_rows;
end;
$$;
