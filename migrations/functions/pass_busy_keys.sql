-- For a claim of an ordered subscription: puts the messages in (p_after, p_to] aside if all of them have a key that is busy, and returns
-- whether it did. It costs a fifth of looking at each message, as read_log_in_order does. p_first is the first kept position.
create or replace function fastpubsub.pass_busy_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint,
    p_first bigint
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_before bigint [];
    v_last bigint [];
    v_is_busy boolean;
    v_position bigint;
begin
    select array_agg(k.before), array_agg(k.last_position), bool_and(k.before is not null) into v_before, v_last, v_is_busy
    from (
        select
            s.last_position,
            (
                select k.position
                from (
                    select k.position from fastpubsub.message_keys as k
                    where k.topic_key = p_topic_key and k.key_hash = s.key_hash and k.position < s.first_position and k.position >= p_first
                    order by k.position desc limit 1
                ) as k
                where
                    (
                        select b.position from fastpubsub.busy_keys as b
                        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
                        limit 1
                    ) is not null
                    or (
                        select l.last_position >= k.position and l.turn <= 0 from fastpubsub.leases as l
                        where
                            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                            and l.position > k.position - 100 and l.position <= k.position
                        order by l.position desc limit 1
                    )
            ) as before
        from (
            select m.key_hash, min(m.position) as first_position, max(m.position) as last_position
            from (
                select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
            ) as m
            group by m.key_hash
        ) as s
    ) as k;
    if v_is_busy is not true then
        return false;
    end if;
    -- A join with the array would be planned by wrong statistics.
    foreach v_position in array v_before loop
        perform fastpubsub.follow_busy(p_topic_key, p_subscription_key, v_position);
    end loop;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return true;
end;
$$;
