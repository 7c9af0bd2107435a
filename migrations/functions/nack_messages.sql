-- Gives deliveries back for another attempt: each run of ids after its p_delay_seconds (null: the backoff of the subscription) and
-- with its p_reasons (null: none). The result
-- for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases); `died` counts the messages that had no attempts left.
create or replace function fastpubsub.nack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_delay_seconds integer [] default null,
    p_lengths integer [] default null,
    p_now timestamptz default null,
    p_reasons text [] default null,
    out outcomes smallint [],
    out died integer
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
    died := 0;
    if v_taken.positions is not null then
        died := fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts,
            (
                select array_agg(p_delay_seconds[t.run] order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            null, 'nacked', coalesce(p_now, clock_timestamp()),
            (
                select array_agg(p_reasons[t.run] order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            v_taken.turns, v_taken.consumer_ids
        );
    end if;
end;
$$;
