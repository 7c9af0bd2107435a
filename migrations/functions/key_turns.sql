-- Of these messages, which the cursor of an ordered subscription has passed, those with a key that is busy, each with the turn of the key:
-- those after it were put aside, and those up to it that wait are in `retries`, or parked in this turn. A key of which a message is
-- leased that is alone with it, and nothing behind it, is not among them.
create or replace function fastpubsub.key_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    out positions bigint [],
    out turns bigint []
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_hashes bigint [];
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select array_agg(u.position), array_agg(m.key_hash) into v_positions, v_hashes
    from unnest(p_positions) as u (position)
    cross join lateral (
        select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position and m.ordering_key is not null
        limit 1
    ) as m
    cross join lateral (
        select k.position from fastpubsub.message_keys as k
        where k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position <= v_cursor.position
        order by k.position desc limit 1
    ) as k
    cross join lateral (
        select from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
        limit 1
    ) as b;
    if v_positions is null then
        return;
    end if;
    select array_agg(k.position), array_agg(k.turn) into key_turns.positions, key_turns.turns
    from (
        select u.position, max(t.turn) as turn
        from (
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
                and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
        ) as t
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = t.position
            limit 1
        ) as m
        cross join lateral unnest(v_positions, v_hashes) as u (position, key_hash)
        where u.key_hash = m.key_hash
        group by u.position
    ) as k;
end;
$$;
