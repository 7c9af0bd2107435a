-- For a claim of a fair subscription: puts the messages in (p_after, p_to] aside if all of them have a key that is busy,
-- and returns whether it did. It costs a fraction of looking at each message, as read_log_fairly does. p_first is the
-- first kept position.
create or replace function fastpubsub.pass_fairly(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_fair_by text,
    p_after bigint,
    p_to bigint,
    p_first bigint
) returns boolean
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
    v_before bigint [];
    v_is_busy boolean;
    v_position bigint;
begin
    with keys as materialized (
        select
            s.key_hash, s.last_position, s.positions,
            (
                select b.position
                from (
                    select b.position from fastpubsub.bundles as b
                    where
                        b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = s.key_hash
                        and b.position >= p_first
                    order by b.position desc limit 1
                ) as b
                where
                    (
                        select k.position from fastpubsub.busy_keys as k
                        where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = b.position
                        limit 1
                    ) is not null
            ) as before
        from (
            select m.key_hash, max(m.position) as last_position, array_agg(m.position) as positions
            from (
                select m.position, fastpubsub.fair_key(p_fair_by, m.ordering_key, m.attributes) as key_hash
                from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
            ) as m
            group by m.key_hash
        ) as s
    ),
    gate as materialized (
        select bool_and(k.before is not null) as is_busy, array_agg(k.before) as before from keys as k
    ),
    bundled as (
        insert into fastpubsub.bundles (topic_key, subscription_key, key_hash, position, positions)
        select p_topic_key, p_subscription_key, k.key_hash, k.last_position, k.positions from keys as k
        where (select g.is_busy from gate as g)
    ),
    marked as (
        insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
        select p_topic_key, p_subscription_key, k.last_position from keys as k
        where (select g.is_busy from gate as g)
    )
    select g.is_busy, g.before into v_is_busy, v_before from gate as g;
    if v_is_busy is not true then
        return false;
    end if;
    -- A join with the array would be planned by wrong statistics.
    foreach v_position in array v_before loop
        delete from fastpubsub.busy_keys as k
        where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = v_position;
    end loop;
    return true;
end;
$$;
