-- Lists the topics where trim_messages has work: messages past the retention, or claims, idempotency keys and places of delayed
-- messages that are no longer needed. p_topic_keys: of these topics only.
create or replace function fastpubsub.list_trimmable(
    p_retention_seconds bigint,
    p_window_seconds integer,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (topic_key bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_head record;
    v_last bigint;
    v_first bigint;
    v_is_trimmable boolean;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    for v_head in
        select h.topic_key, coalesce(h.retention_seconds, p_retention_seconds) as retention from fastpubsub.heads as h
        where (p_topic_keys is null or h.topic_key = any(p_topic_keys))
    loop
        -- As last_position does, without a call.
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_head.topic_key
        order by m.position desc
        limit 1;
        v_last := coalesce(v_last, 0);
        v_first := fastpubsub.first_position(v_head.topic_key, v_last);
        perform 1 from fastpubsub.messages as m
        where
            m.topic_key = v_head.topic_key and m.position = v_first and m.position < v_last
            and m.created_at < v_now - make_interval(secs => v_head.retention);
        v_is_trimmable := found;
        if not v_is_trimmable then
            select k.created_at < v_now - make_interval(secs => p_window_seconds) into v_is_trimmable from fastpubsub.idempotency_keys as k
            where k.topic_key = v_head.topic_key
            order by k.created_at
            limit 1;
        end if;
        if v_is_trimmable is not true then
            select f.created_at < v_now - make_interval(secs => p_window_seconds) into v_is_trimmable from fastpubsub.fired_messages as f
            where
                f.topic_key = v_head.topic_key and f.position is not null
                and f.due_at < v_now - make_interval(secs => p_window_seconds)
            order by f.due_at, f.delayed_key
            limit 1;
        end if;
        if v_is_trimmable is not true then
            perform 1 from fastpubsub.cursors as c
            cross join lateral (
                select n.sequence from fastpubsub.claims as n
                where n.topic_key = v_head.topic_key and n.subscription_key = c.subscription_key
                order by n.sequence desc limit 1
            ) as n
            cross join lateral (
                select o.sequence from fastpubsub.claims as o
                where o.topic_key = v_head.topic_key and o.subscription_key = c.subscription_key and o.sequence = n.sequence - 1
                limit 1
            ) as o
            where c.topic_key = v_head.topic_key
            limit 1;
            v_is_trimmable := found;
        end if;
        if v_is_trimmable then
            topic_key := v_head.topic_key;
            return next;
        end if;
    end loop;
end;
$$;
