-- Settles deliveries for good. The ids come in runs; the result for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.ack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if true = any(v_taken.revived) then
        for i in 1..cardinality(v_taken.positions) loop
            if v_taken.revived[i] then
                delete from fastpubsub.revived as v
                where
                    v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                    and v.position >= v_taken.positions[i] and v.position <= v_taken.last_positions[i];
            end if;
        end loop;
    end if;
    return v_taken.outcomes;
end;
$$;
