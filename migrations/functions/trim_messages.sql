-- Deletes up to p_limit messages from the front of a topic: older than the retention (of the topic, else p_retention_seconds) and below
-- every cursor, every leased and every waiting position, but never the newest. Returns how many it deleted.
create or replace function fastpubsub.trim_messages(
    p_topic_key bigint,
    p_retention_seconds bigint,
    p_limit integer default 5000,
    p_wait boolean default false,
    p_now timestamptz default null
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_retention bigint;
    v_last bigint;
    v_first bigint;
    v_end bigint;
    v_pin bigint;
    v_subscription record;
    v_bundle record;
    v_cursor fastpubsub.claims;
    v_trimmed integer;
begin
    perform fastpubsub.begin_call(false);
    if not fastpubsub.lock_job('trim_messages', p_wait) then
        return 0;
    end if;
    select coalesce(h.retention_seconds, p_retention_seconds) into v_retention from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        return 0;
    end if;
    v_last := fastpubsub.last_position(p_topic_key);
    v_first := fastpubsub.first_position(p_topic_key, v_last);
    -- Exclusive: the first position that stays.
    v_end := least(
        v_last, v_first + p_limit, fastpubsub.position_before(p_topic_key, v_now - make_interval(secs => v_retention)) + 1
    );
    -- A cursor is read with its lock held, so that no claim can lease, and no seek can go, below v_end in the meantime.
    for v_subscription in
        select c.subscription_key from fastpubsub.cursors as c
        where c.topic_key = p_topic_key
        order by c.subscription_key
        for no key update
    loop
        exit when v_end <= v_first;
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_end := least(v_end, v_cursor.position + 1);
        -- A row of leases may begin with reprocessed dead letters below v_first, and is at most a hundred positions long.
        select min(greatest(l.position, v_first)) into v_pin from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = v_subscription.subscription_key
            and l.position > v_first - 100 and l.position < v_end and l.last_position >= v_first;
        v_end := least(v_end, v_pin);
        -- A message that waits below v_first is a reprocessed dead letter with a copy of its own.
        select min(r.position) into v_pin from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = v_subscription.subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and r.position >= v_first and r.position < v_end;
        v_end := least(v_end, v_pin);
    end loop;
    if v_end <= v_first then
        return 0;
    end if;
    for v_subscription in
        select c.subscription_key, c.fair_by from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.fair_by is not null
    loop
        -- Each is found by its last message. A join would be planned by wrong statistics.
        for v_bundle in
            select b.key_hash, b.position from fastpubsub.messages as m
            cross join lateral (
                select b.key_hash, b.position from fastpubsub.bundles as b
                where
                    b.topic_key = p_topic_key and b.subscription_key = v_subscription.subscription_key
                    and b.key_hash = fastpubsub.fair_key(v_subscription.fair_by, m.ordering_key, m.attributes)
                    and b.position = m.position
                limit 1
            ) as b
            where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end
        loop
            delete from fastpubsub.bundles as b
            where
                b.topic_key = p_topic_key and b.subscription_key = v_subscription.subscription_key
                and b.key_hash = v_bundle.key_hash and b.position = v_bundle.position;
        end loop;
    end loop;
    with trimmed as (
        delete from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end
        returning m.position, m.ordering_key
    ),
    keys as (
        delete from fastpubsub.message_keys as k
        using trimmed as t
        where
            t.ordering_key is not null
            and k.topic_key = p_topic_key and k.key_hash = hashtextextended(t.ordering_key, 0) and k.position = t.position
    )
    select count(*) into v_trimmed from trimmed as t;
    -- A dead letter keeps how it failed. A message whose copy waits or is leased was not trimmed just now.
    for v_subscription in select c.subscription_key from fastpubsub.cursors as c where c.topic_key = p_topic_key loop
        delete from fastpubsub.failures as f
        where
            f.topic_key = p_topic_key and f.subscription_key = v_subscription.subscription_key
            and f.position >= v_first and f.position < v_end
            and not exists (
                select from fastpubsub.dead_letters as d
                where
                    d.topic_key = p_topic_key and d.subscription_key = v_subscription.subscription_key
                    and d.position = f.position
                offset 0
            );
    end loop;
    return v_trimmed;
end;
$$;
