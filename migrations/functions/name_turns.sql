-- For a caller that holds the cursor and requeues messages of an ordered subscription: a turn of 0 or -1 becomes the message's own
-- position, and its key gets its row in busy_keys, unless more of it was put aside. Without a key there is no turn.
create or replace function fastpubsub.name_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_turns bigint [],
    p_cursor bigint
) returns bigint []
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_turns bigint [];
    v_last bigint [];
begin
    select
        array_agg(case when u.turn <= 0 then m.position else u.turn end order by u.ordinal),
        array_agg(m.position) filter (where k.position is null and m.position is not null)
    into v_turns, v_last
    from unnest(p_positions, p_turns) with ordinality as u (position, turn, ordinal)
    left join lateral (
        select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position and u.turn <= 0 and m.ordering_key is not null
        limit 1
    ) as m on true
    left join lateral (
        select k.position from fastpubsub.message_keys as k
        where
            k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > m.position and k.position <= p_cursor
        order by k.position limit 1
    ) as k on true;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return v_turns;
end;
$$;
