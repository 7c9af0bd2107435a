-- Moves the cursor: p_to is 'earliest', 'latest', 'time' (the first message created at or after p_time comes next) or 'message' (p_position
-- comes next). Leases and waiting retries end, so old ack ids become stale. Dead letters stay; a reprocessed one that was not settled yet
-- becomes a dead letter again, because its message may be trimmed. `acked` does not change.
create or replace function fastpubsub.seek_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_to text,
    p_time timestamptz default null,
    p_position bigint default null,
    p_now timestamptz default null
) returns void
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
    v_position bigint;
    v_ended bigint;
    v_revived bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_position := fastpubsub.sought_position(p_topic_key, p_to, p_time, p_position);
    v_ended := fastpubsub.end_deliveries(p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position);
    with moved as (
        delete from fastpubsub.revived as v where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
        returning v.*
    )
    insert into fastpubsub.dead_letters (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key, sequence
    )
    select
        m.topic_key, m.subscription_key, m.position, m.created_at, coalesce(p_now, clock_timestamp()), 0,
        'the subscription was sought elsewhere before the reprocessed message was settled', m.payload, m.attributes, m.ordering_key,
        v_cursor.sequence
    from moved as m
    on conflict (topic_key, subscription_key, position) do nothing;
    get diagnostics v_revived = row_count;
    -- What has died may come again.
    if v_position < v_cursor.position then
        update fastpubsub.cursors as c set sought_sequence = v_cursor.sequence + 1
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    end if;
    perform fastpubsub.remember_seek(p_topic_key, p_subscription_key, v_cursor.position, v_position, 'skipped', p_now);
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_position, v_cursor.routed - v_ended + v_revived, v_cursor.purged
    );
end;
$$;
