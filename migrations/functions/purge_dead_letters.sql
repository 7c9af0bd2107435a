-- Deletes dead letters for good; the keys that they hold go on. Returns the positions that it deleted.
create or replace function fastpubsub.purge_dead_letters(
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
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
    v_turn bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where d.created_at = i.created_at
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position
        returning d.turn into v_turn;
        if v_turn is not null then
            perform fastpubsub.end_hold(
                p_topic_key, p_subscription_key, v_position, v_turn, null, coalesce(p_now, clock_timestamp())
            );
        end if;
        perform fastpubsub.forget_failures(p_topic_key, p_subscription_key, v_position, v_position);
    end loop;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_positions)
    );
    return v_positions;
end;
$$;
