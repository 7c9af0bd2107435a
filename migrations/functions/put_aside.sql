-- The messages that an ordered or fair subscription has put aside, turn by turn, whether they pass the filter or not; p_limit of them, null
-- for all. It is no SQL function: in one, topics on several nodes would look empty.
create or replace function fastpubsub.put_aside(p_topic_key bigint, p_subscription_key bigint, p_limit bigint default null)
returns setof bigint
language plpgsql stable
as $$
declare
    v_fair_by text;
begin
    select u.fair_by into v_fair_by from fastpubsub.cursors as u
    where u.topic_key = p_topic_key and u.subscription_key = p_subscription_key;
    if v_fair_by is null then
        return query
        select k.position
        from (
            select c.position, c.retry_due_at, c.retry_position from fastpubsub.claims as c
            where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
            order by c.sequence desc limit 1
        ) as c
        cross join lateral (
            select l.turn, min(l.position) as position from fastpubsub.leases as l
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn > 0
            group by l.turn
            union all
            select p, p from fastpubsub.leases as l
            cross join lateral generate_series(l.position, l.last_position) as p
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn = 0
            union all
            select r.turn, r.position from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.turn is not null
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position)
        ) as t
        -- Joins would be planned by wrong statistics.
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = t.position
            limit 1
        ) as m
        cross join lateral (
            select k.position from fastpubsub.message_keys as k
            where k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > t.turn and k.position <= c.position
            order by k.position
            offset 0
        ) as k
        limit p_limit;
        return;
    end if;
    return query
    select b.position
    from (
        select c.retry_due_at, c.retry_position from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1
    ) as c
    cross join lateral (
        select r.turn, r.position from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.turn is not null
            and (r.due_at, r.position) > (c.retry_due_at, c.retry_position)
    ) as t
    cross join lateral (
        select fastpubsub.fair_key(v_fair_by, m.ordering_key, m.attributes) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = t.position
        limit 1
    ) as m
    cross join lateral (
        select u.position
        from (
            select b.positions from fastpubsub.bundles as b
            where
                b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = m.key_hash
                and b.position > t.turn
            order by b.position
            offset 0
        ) as b
        cross join lateral unnest(b.positions) as u (position)
        where u.position > t.turn
    ) as b
    limit p_limit;
end;
$$;
