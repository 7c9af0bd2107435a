-- Lists the subscriptions that keep the log of their topic from being deleted: the oldest message that each still needs (because it is
-- unread, leased or waiting), how many messages the topic has from there on, and how long the topic keeps messages that no subscription
-- needs (null: the default of the server). The worst comes first. For `fastpubsub doctor` and for people; writes nothing.
create or replace function fastpubsub.list_kept_messages(p_limit integer)
returns table (topic_id text, subscription_id text, kept bigint, since timestamptz, retention_seconds bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    select
        t.id,
        s.id,
        fastpubsub.last_position(s.topic_key) - n.position + 1,
        m.created_at,
        h.retention_seconds
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.heads as h on s.topic_key = h.topic_key
    -- A leased or waiting message below it is a reprocessed dead letter with a copy of its own.
    cross join lateral fastpubsub.first_position(s.topic_key, fastpubsub.last_position(s.topic_key)) as f (position)
    cross join lateral (
        select least(
            (
                select c.position + 1 from fastpubsub.claims as c
                where c.topic_key = s.topic_key and c.subscription_key = s.subscription_key
                order by c.sequence desc limit 1
            ),
            (
                select min(l.position) from fastpubsub.leases as l
                where l.topic_key = s.topic_key and l.subscription_key = s.subscription_key and l.position >= f.position
            ),
            (
                select min(r.position) from fastpubsub.retries as r
                where r.topic_key = s.topic_key and r.subscription_key = s.subscription_key and r.position >= f.position
            )
        ) as position
    ) as n
    cross join lateral (
        select m.created_at from fastpubsub.messages as m
        where m.topic_key = s.topic_key and m.position = n.position
        limit 1
    ) as m
    order by 3 desc
    limit p_limit;
end;
$$;
