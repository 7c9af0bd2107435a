-- Of the subscriptions of a topic that reject, the one with the least room after the last position; null keys without
-- any. What a claim that has not committed took still counts.
create or replace function fastpubsub.fullest_subscription(
    p_topic_key bigint,
    p_last bigint,
    out subscription_key bigint,
    out max_backlog integer,
    out room bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    select c.subscription_key, c.max_backlog, c.max_backlog - (p_last - k.position)
    into fullest_subscription.subscription_key, fullest_subscription.max_backlog, fullest_subscription.room
    from fastpubsub.cursors as c
    cross join lateral (
        select k.position from fastpubsub.claims as k
        where k.topic_key = p_topic_key and k.subscription_key = c.subscription_key
        order by k.sequence desc limit 1
    ) as k
    where c.topic_key = p_topic_key and c.max_backlog is not null and c.on_full = 'reject'
    order by c.max_backlog - (p_last - k.position), c.subscription_key
    limit 1;
end;
$$;
