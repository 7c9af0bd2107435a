-- Settles deliveries for good. The ids come in runs; the result for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases).
-- `freed` says whether a key of an ordered subscription can go on, which is locked; others are not.
create or replace function fastpubsub.ack_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out freed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_ordered boolean;
    v_ended record;
begin
    perform fastpubsub.begin_call(true);
    select c.ordered into v_ordered from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    elsif v_ordered then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    elsif cardinality(p_positions) = 1 then
        -- When this is no whole lease, no lock was taken, and what follows may still wait for the cursor.
        v_ended := fastpubsub.end_whole_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_lengths);
        if v_ended.runs = 1 then
            outcomes := v_ended.outcomes;
            freed := false;
            return;
        end if;
    end if;
    v_ended := fastpubsub.end_acked(
        p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths, p_now, v_ordered
    );
    outcomes := v_ended.outcomes;
    freed := v_ended.freed;
end;
$$;
