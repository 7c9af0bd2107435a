-- The usual case of an ack: few runs, of which each is one whole lease with its token. Ends these one after the other, up to the first run
-- that is something else, such as a part of a lease; `runs` are ended, and `outcomes` are those of their ids. The caller holds the cursor,
-- or has a single run, and leaves the other runs to take_leases. That locks leases by position, so this begins only when the runs are in
-- order and apart.
create or replace function fastpubsub.end_whole_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_lengths integer [],
    out runs integer,
    out outcomes smallint []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    -- take_leases ends many in one statement.
    c_runs constant integer := 8;
    v_count integer := cardinality(p_positions);
    v_length integer;
    v_messages integer := 0;
begin
    runs := 0;
    if v_count > c_runs then
        return;
    end if;
    for i in 2..v_count loop
        if p_positions[i] < p_positions[i - 1] + coalesce(p_lengths[i - 1], 1) then
            return;
        end if;
    end loop;
    for i in 1..v_count loop
        v_length := coalesce(p_lengths[i], 1);
        delete from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = p_positions[i]
            and l.last_position = p_positions[i] + v_length - 1 and l.token = p_tokens[i] and not l.revived;
        exit when not found;
        runs := i;
        v_messages := v_messages + v_length;
    end loop;
    outcomes := array_fill(1::smallint, array[v_messages]);
end;
$$;
