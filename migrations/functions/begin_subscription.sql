-- Puts a new subscription, whose row in `cursors` is there, at a position of its topic, from where its filter judges, turns push on, and
-- counts as its first use.
create or replace function fastpubsub.begin_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_filter json,
    p_push json,
    p_now timestamptz default null
) returns void
language plpgsql volatile
as $$
begin
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    ) values (p_topic_key, p_subscription_key, 1, p_position, '-infinity', 0, 0, 0, 0, 0);
    insert into fastpubsub.subscription_uses (topic_key, subscription_key, used_at)
    select c.topic_key, c.subscription_key, coalesce(p_now, clock_timestamp()) from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key and c.expire_after_seconds is not null;
    perform fastpubsub.remember_filter(p_topic_key, p_subscription_key, p_position + 1, p_filter);
    if p_push is not null then
        perform fastpubsub.set_push(p_topic_key, p_subscription_key, p_push);
        perform fastpubsub.require_push_timeout(p_topic_key, p_subscription_key);
    end if;
end;
$$;
