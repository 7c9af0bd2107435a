-- Tells waiting consumers which of the subscriptions have something to claim, or are gone (`ready`), in how many seconds the next waiting
-- retry is due, and which are `paused`, and so never ready. `room` says how many messages a limit lets through; for 0, `due_seconds` is
-- when to look again. Each subscription is named by its place in the arrays; those with nothing to report are left out.
create or replace function fastpubsub.list_ready_subscriptions_2(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns table (place integer, ready boolean, due_seconds double precision, paused boolean, room integer)
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
begin
    return query
    select
        s.place, s.ready and not s.paused and s.room is distinct from 0,
        case when s.paused then null when s.ready and s.room = 0 then s.limited_seconds else s.due_seconds end, s.paused,
        case when s.ready then s.room end
    from (
        select
            k.ordinal::integer as place,
            coalesce(c.is_paused, false) as paused,
            l.room,
            l.seconds as limited_seconds,
            c.position is null
            or exists (
                select from fastpubsub.messages as m where m.topic_key = k.topic_key and m.position = c.position + 1
                -- Or it would read all messages, to look each one up.
                offset 0
            )
            or exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = k.topic_key and r.subscription_key = k.subscription_key
                    and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
                offset 0
            ) as ready,
            (
                select extract(epoch from r.due_at - v_now)::double precision from fastpubsub.retries as r
                where r.topic_key = k.topic_key and r.subscription_key = k.subscription_key and r.due_at > v_now
                    and r.due_at < 'infinity'
                order by r.due_at, r.position
                limit 1
            ) as due_seconds
        from unnest(p_topic_keys, p_subscription_keys) with ordinality as k (topic_key, subscription_key, ordinal)
        left join lateral (
            select n.position, n.retry_due_at, n.retry_position, u.paused_at is not null as is_paused, u.max_in_flight, u.rate_limit
            from fastpubsub.cursors as u
            cross join lateral (
                select n.position, n.retry_due_at, n.retry_position from fastpubsub.claims as n
                where n.topic_key = u.topic_key and n.subscription_key = u.subscription_key
                order by n.sequence desc
                limit 1
            ) as n
            where u.topic_key = k.topic_key and u.subscription_key = k.subscription_key
        ) as c on true
        left join lateral (
            select r.room, r.seconds
            from fastpubsub.room_to_claim(k.topic_key, k.subscription_key, c.max_in_flight, c.rate_limit, v_now) as r
            where c.max_in_flight is not null or c.rate_limit is not null
            -- Without a limit it is not called.
            limit 1
        ) as l on true
    ) as s
    where s.ready or s.paused or s.due_seconds is not null;
end;
$$;
