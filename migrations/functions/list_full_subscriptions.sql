-- Lists the subscriptions that have more messages before them than they may, and do not reject them, for drop_backlog.
-- p_topic_keys: of these topics only, one after the other, for topics on several nodes.
create or replace function fastpubsub.list_full_subscriptions(p_topic_keys bigint [] default null)
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_position bigint;
    v_last bigint;
begin
    if p_topic_keys is null then
        return query
        select c.topic_key, c.subscription_key, s.id
        from fastpubsub.cursors as c
        inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
        cross join lateral (
            select k.position from fastpubsub.claims as k
            where k.topic_key = c.topic_key and k.subscription_key = c.subscription_key
            order by k.sequence desc limit 1
        ) as k
        cross join lateral (
            select m.position from fastpubsub.messages as m where m.topic_key = c.topic_key order by m.position desc limit 1
        ) as m
        where c.max_backlog is not null and c.on_full <> 'reject' and m.position - k.position > c.max_backlog;
        return;
    end if;
    for v_cursor in
        select c.topic_key, c.subscription_key, c.max_backlog from fastpubsub.cursors as c
        where c.topic_key = any(p_topic_keys) and c.max_backlog is not null and c.on_full <> 'reject'
    loop
        select k.position into v_position from fastpubsub.claims as k
        where k.topic_key = v_cursor.topic_key and k.subscription_key = v_cursor.subscription_key
        order by k.sequence desc limit 1;
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_cursor.topic_key
        order by m.position desc limit 1;
        continue when v_last - v_position > v_cursor.max_backlog is not true;
        select s.topic_key, s.subscription_key, s.id
        into list_full_subscriptions.topic_key, list_full_subscriptions.subscription_key, list_full_subscriptions.subscription_id
        from fastpubsub.subscriptions as s
        where s.subscription_key = v_cursor.subscription_key;
        if found then
            return next;
        end if;
    end loop;
end;
$$;
