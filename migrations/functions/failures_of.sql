-- The deliveries of a message to a subscription that failed, the last 20 of them, the oldest first, as JSON; null for none.
create or replace function fastpubsub.failures_of(p_topic_key bigint, p_subscription_key bigint, p_position bigint) returns json
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    return (
        select array_to_json(array_agg(f.failure order by f.failure_key))
        from (
            select
                f.failure_key,
                json_strip_nulls(json_build_object(
                    'failed_at', to_char(f.failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'delivery_attempt', f.attempt, 'cause', f.cause, 'reason', f.reason, 'consumer_id', f.consumer_id
                )) as failure
            from fastpubsub.failures as f
            where f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
            order by f.failure_key desc
            limit 20
        ) as f
    );
end;
$$;
