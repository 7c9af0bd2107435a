-- ack_messages_2 for a caller that has begun the call, and holds the cursor of an ordered subscription (p_ordered). One that passes the
-- `turns` on to claim_in_order, with their positions, does not want their keys to go on before (p_frees).
create or replace function fastpubsub.end_acked(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    p_now timestamptz,
    p_ordered boolean,
    p_frees boolean default true,
    out outcomes smallint [],
    out freed boolean,
    out turns bigint [],
    out positions bigint [],
    out last_positions bigint []
)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_taken record;
begin
    if p_ordered then
        v_taken := fastpubsub.end_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    else
        v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    end if;
    if true = any(v_taken.revived) then
        for i in 1..cardinality(v_taken.positions) loop
            if v_taken.revived[i] then
                delete from fastpubsub.revived as v
                where
                    v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                    and v.position >= v_taken.positions[i] and v.position <= v_taken.last_positions[i];
                perform fastpubsub.forget_failures(
                    p_topic_key, p_subscription_key, v_taken.positions[i], v_taken.last_positions[i]
                );
            end if;
        end loop;
    end if;
    outcomes := v_taken.outcomes;
    turns := v_taken.turns;
    positions := v_taken.positions;
    last_positions := v_taken.last_positions;
    freed := p_ordered and p_frees
    and fastpubsub.free_keys(
        p_topic_key, p_subscription_key, v_taken.turns, coalesce(p_now, clock_timestamp()), v_taken.positions, v_taken.last_positions
    );
end;
$$;
