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
declare
    v_subscription record;
    v_times timestamptz [] := '{}';
    v_retentions bigint [] := '{}';
    v_topic_ids text [] := '{}';
    v_ids text [] := '{}';
    v_kept bigint [] := '{}';
    v_first bigint;
    v_last bigint;
    v_position bigint;
    v_created_at timestamptz;
    v_retention bigint;
begin
    for v_subscription in
        select t.id as topic_id, s.id, s.topic_key, s.subscription_key
        from fastpubsub.subscriptions as s
        cross join lateral (select t.id from fastpubsub.topics as t where t.topic_key = s.topic_key limit 1) as t
    loop
        v_last := fastpubsub.last_position(v_subscription.topic_key);
        -- A leased or waiting message below it is a reprocessed dead letter with a copy of its own.
        v_first := fastpubsub.first_position(v_subscription.topic_key, v_last);
        select c.position + 1 into v_position from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        select least(v_position, min(l.position)) into v_position from fastpubsub.leases as l
        where
            l.topic_key = v_subscription.topic_key and l.subscription_key = v_subscription.subscription_key
            and l.position >= v_first;
        select least(v_position, min(r.position)) into v_position from fastpubsub.retries as r
        where
            r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
            and r.position >= v_first;
        select m.created_at into v_created_at from fastpubsub.messages as m
        where m.topic_key = v_subscription.topic_key and m.position = v_position;
        continue when not found;
        select h.retention_seconds into v_retention from fastpubsub.heads as h where h.topic_key = v_subscription.topic_key;
        continue when not found;
        v_topic_ids := v_topic_ids || v_subscription.topic_id;
        v_ids := v_ids || v_subscription.id;
        v_kept := v_kept || (v_last - v_position + 1);
        v_times := v_times || v_created_at;
        v_retentions := v_retentions || v_retention;
    end loop;
    return query
    select u.topic_id, u.id, u.kept, u.since, u.retention
    from unnest(v_topic_ids, v_ids, v_kept, v_times, v_retentions) as u (topic_id, id, kept, since, retention)
    order by u.kept desc
    limit p_limit;
end;
$$;
