-- Moves dead letters back: their copy goes to `revived` and is due at once, and attempts start again at 1. Where a seek made the message
-- come again anyway (it is ahead of the cursor, put aside, leased or waiting), only the dead letter is deleted, and counts as purged; a
-- message ahead or put aside that the filter would skip stays dead. One that holds its key goes back to its place, before what was put
-- aside. Returns the positions that are no longer dead.
create or replace function fastpubsub.reprocess_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_created_at timestamptz [],
    p_now timestamptz default null
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
    v_coming bigint [];
    v_now timestamptz;
    v_due_at timestamptz;
    v_letter record;
    v_held bigint [] := '{}';
    v_again bigint [];
    v_busy bigint [];
    v_turns bigint [];
    v_elsewhere bigint [] := '{}';
    v_aside bigint [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at, d.payload from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where d.created_at = i.created_at
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_due_at := greatest(v_now, v_cursor.retry_due_at + interval '1 microsecond');
    for v_letter in
        select d.position, d.turn
        from unnest(v_positions) as p
        cross join lateral (
            select d.position, d.turn from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
            limit 1
        ) as d
        where d.turn is not null
    loop
        if fastpubsub.end_hold(p_topic_key, p_subscription_key, v_letter.position, v_letter.turn, v_due_at, v_now) then
            v_held := v_held || v_letter.position;
        end if;
    end loop;
    -- Only a seek makes a message come again, of which a dead letter remains. What died after the last one is nowhere else, and is looked
    -- for nowhere, since a message that waits is not found by its position. Those that held their keys are where they belong.
    select array_agg(d.position) into v_again
    from unnest(v_positions) as p
    cross join lateral (
        select d.position, d.sequence from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where
        p <= v_cursor.position and p <> all(v_held)
        -- One that died before there was this column may be anywhere.
        and (d.sequence is null or d.sequence < v_settings.sought_sequence);
    if v_again is not null and v_settings.ordered then
        select k.positions, k.turns into v_busy, v_turns from fastpubsub.key_turns(p_topic_key, p_subscription_key, v_again) as k;
        select coalesce(array_agg(t.position), '{}') into v_aside
        from unnest(v_busy, v_turns) as t (position, turn) where t.turn < t.position;
        select coalesce(array_agg(p.position), '{}') into v_elsewhere
        from unnest(v_busy, v_turns) as t (position, turn)
        cross join lateral (
            select p.position from fastpubsub.parked as p
            where
                p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = t.turn
                and p.position = t.position
            limit 1
        ) as p;
    elsif v_again is not null and v_settings.fair_by is not null then
        select coalesce(array_agg(p), '{}') into v_aside
        from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p
        where p = any(v_again);
    end if;
    if v_settings.filter_path is not null and (v_positions[cardinality(v_positions)] > v_cursor.position or cardinality(v_aside) > 0) then
        select coalesce(array_agg(p order by p), '{}') into v_positions
        from unnest(v_positions) as p
        where
            (p <= v_cursor.position and p <> all(v_aside))
            or (
                select f.positions is not null
                from fastpubsub.matching_positions(p_topic_key, p - 1, p, v_settings.filter_path, 1) as f
            );
    end if;
    if v_again is not null then
        select v_elsewhere || coalesce(array_agg(t.position), '{}') into v_elsewhere
        from (
            select p as position from unnest(v_again) as p
            cross join lateral (
                select l.last_position from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position <= p and l.position > p - 100
                order by l.position desc
                limit 1
            ) as l
            where l.last_position >= p
            union all
            select r.position from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = any(v_again)
        ) as t;
    end if;
    select coalesce(array_agg(p), '{}') into v_coming
    from unnest(v_positions) as p
    where p > v_cursor.position or p = any(v_elsewhere) or p = any(v_aside);
    insert into fastpubsub.revived (topic_key, subscription_key, position, created_at, payload, attributes, ordering_key)
    select d.topic_key, d.subscription_key, d.position, d.created_at, d.payload, d.attributes, d.ordering_key
    from unnest(v_positions) as p
    cross join lateral (
        select d.* from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where p <> all(v_coming);
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select p_topic_key, p_subscription_key, v_due_at, p, 0, 'reprocessed'
    from unnest(v_positions) as p
    where p <> all(v_coming) and p <> all(v_held);
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
    end loop;
    if cardinality(v_coming) > 0 then
        perform fastpubsub.move_cursor(
            p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_coming)
        );
    end if;
    return v_positions;
end;
$$;
