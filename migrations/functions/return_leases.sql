-- Gives back deliveries that no consumer has seen: they are due at once, and the attempt does not count. The ids come as in ack_messages_2.
-- The result for each id is 1 (returned), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.return_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    outcomes := v_taken.outcomes;
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions,
            (
                select array_agg(t.attempts - 1 order by t.ordinal)
                from unnest(v_taken.attempts) with ordinality as t (attempts, ordinal)
            ),
            array_fill(0, array[cardinality(v_taken.positions)]), null, 'returned', coalesce(p_now, clock_timestamp()), null, v_taken.turns
        );
    end if;
end;
$$;
