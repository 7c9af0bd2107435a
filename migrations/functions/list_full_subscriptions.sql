-- Lists the subscriptions that have more messages before them than they may, and do not reject them, for drop_backlog.
create or replace function fastpubsub.list_full_subscriptions()
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
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
end;
$$;
