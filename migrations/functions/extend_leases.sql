-- Moves the deadline of held deliveries: that of each run of ids to its p_extend_seconds from now. The result for each id is 1 (still
-- held), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.extend_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_extend_seconds integer [],
    p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
    )
    select
        p_topic_key, p_subscription_key, min(t.position), max(t.last_position), t.token, t.leased_at,
        coalesce(p_now, clock_timestamp()) + make_interval(secs => p_extend_seconds[t.run]), t.attempts, t.revived, t.consumer_id, t.turn
    from (
        select
            t.*, t.position - sum(t.last_position - t.position + 1)
                over (partition by t.token, t.run, t.attempts, t.revived, t.consumer_id, t.turn order by t.position rows unbounded preceding)
            + (t.last_position - t.position) as island,
            -- Single positions were cut out of leases: join them again, up to the longest that a lease can be.
            case when t.position = t.last_position then t.position / 100 else - t.position end as part
        from unnest(
            v_taken.positions, v_taken.last_positions, v_taken.tokens, v_taken.leased_at, v_taken.attempts, v_taken.revived, v_taken.consumer_ids,
            v_taken.ordinals, v_taken.turns
        ) as t (position, last_position, token, leased_at, attempts, revived, consumer_id, run, turn)
    ) as t
    group by t.token, t.leased_at, t.run, t.attempts, t.revived, t.consumer_id, t.turn, t.island, t.part
    order by min(t.position);
    return v_taken.outcomes;
end;
$$;
