-- For a caller that holds the cursor: ends all leases and waiting retries of a subscription, and counts their messages. Old ack ids name
-- nothing any more.
create or replace function fastpubsub.end_deliveries(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint
) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_leased bigint;
    v_waiting bigint;
    v_parked bigint;
begin
    with ended as (
        delete from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        returning l.position, l.last_position
    )
    select coalesce(sum(e.last_position - e.position + 1), 0) into v_leased from ended as e;
    with ended as (
        delete from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        returning r.reason
    )
    select count(*) into v_waiting from ended as e where e.reason <> 'put aside';
    with ended as (
        delete from fastpubsub.parked as p where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key
        returning p.reason
    )
    select count(*) into v_parked from ended as e where e.reason <> 'put aside';
    delete from fastpubsub.busy_keys as b where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key;
    delete from fastpubsub.bundles as b where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key;
    return v_leased + v_waiting + v_parked;
end;
$$;
