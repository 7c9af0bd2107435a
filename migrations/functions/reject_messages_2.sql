-- Makes messages dead letters at once, whatever attempts are left, each run of ids with its reason. The result for each id is 1 (settled),
-- 0 (gone) or 2 (stale; see take_leases). `freed` says whether the subscription is ordered: then a key may go on.
create or replace function fastpubsub.reject_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_reasons text [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out freed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_settings fastpubsub.cursors;
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts, null,
            (
                select array_agg(coalesce(p_reasons[t.run], 'rejected') order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            'rejected', coalesce(p_now, clock_timestamp()), null, v_taken.turns, v_taken.consumer_ids
        );
    end if;
    outcomes := v_taken.outcomes;
    freed := v_settings.ordered;
end;
$$;
