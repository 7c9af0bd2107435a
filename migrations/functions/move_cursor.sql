-- Inserts the newest row of `claims` for a caller that holds the cursor; the floor of the retries and the bucket of the rate limit stay.
create or replace function fastpubsub.move_cursor(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_routed bigint,
    p_purged bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, full_at, ttl_expired
    )
    select
        p_topic_key, p_subscription_key, c.sequence + 1, p_position, c.retry_due_at, c.retry_position, p_routed, p_purged, c.dropped,
        c.filtered, c.full_at, c.ttl_expired
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
end;
$$;
