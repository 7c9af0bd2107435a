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
    v_topic_keys bigint [] := '{}';
    v_keys bigint [] := '{}';
    v_positions bigint [] := '{}';
    v_kept bigint [] := '{}';
    v_first bigint;
    v_last bigint;
    v_position bigint;
begin
    for v_subscription in
        select s.topic_key, s.subscription_key from fastpubsub.subscriptions as s
    loop
        -- As last_position does, without a call.
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_subscription.topic_key
        order by m.position desc
        limit 1;
        continue when not found;
        -- A leased or waiting message below it is a reprocessed dead letter with a copy of its own.
        v_first := fastpubsub.first_position(v_subscription.topic_key, v_last);
        select
            least(
                c.position + 1,
                (
                    select min(l.position) from fastpubsub.leases as l
                    where
                        l.topic_key = v_subscription.topic_key and l.subscription_key = v_subscription.subscription_key
                        and l.position >= v_first
                ),
                (
                    select min(r.position) from fastpubsub.retries as r
                    where
                        r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
                        and r.position >= v_first
                )
            )
        into v_position
        from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc
        limit 1;
        -- Positions are dense.
        continue when v_position between v_first and v_last is not true;
        v_topic_keys := v_topic_keys || v_subscription.topic_key;
        v_keys := v_keys || v_subscription.subscription_key;
        v_positions := v_positions || v_position;
        v_kept := v_kept || (v_last - v_position + 1);
    end loop;
    for v_subscription in
        select u.topic_key, u.position, u.kept, s.id, t.id as topic_id
        from (
            select u.topic_key, u.subscription_key, u.position, u.kept
            from unnest(v_topic_keys, v_keys, v_positions, v_kept) as u (topic_key, subscription_key, position, kept)
            order by u.kept desc
            limit p_limit
        ) as u
        inner join fastpubsub.subscriptions as s on u.subscription_key = s.subscription_key
        inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        order by u.kept desc
    loop
        select m.created_at, h.retention_seconds into list_kept_messages.since, list_kept_messages.retention_seconds
        from fastpubsub.messages as m
        inner join fastpubsub.heads as h on m.topic_key = h.topic_key
        where
            m.topic_key = v_subscription.topic_key and m.position = v_subscription.position
            and h.topic_key = v_subscription.topic_key;
        continue when not found;
        topic_id := v_subscription.topic_id;
        subscription_id := v_subscription.id;
        kept := v_subscription.kept;
        return next;
    end loop;
end;
$$;
