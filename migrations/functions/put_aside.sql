-- The messages that an ordered subscription has put aside, turn by turn, whether they pass the filter or not.
create or replace function fastpubsub.put_aside(p_topic_key bigint, p_subscription_key bigint) returns setof bigint
language sql stable
as $$
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
$$;
