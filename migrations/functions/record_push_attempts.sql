-- Writes what became of pushes, which ended p_seconds ago.
create or replace function fastpubsub.record_push_attempts(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_positions bigint [],
    p_created_at timestamptz [],
    p_seconds double precision [],
    p_attempts integer [],
    p_outcomes text [],
    p_statuses integer [],
    p_milliseconds integer [],
    p_said text [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.begin_call(false);
    insert into fastpubsub.push_attempts (
        topic_key, subscription_key, position, created_at, pushed_at, attempt, outcome, status, milliseconds, said
    )
    select
        u.topic_key, u.subscription_key, u.position, u.created_at, v_now - make_interval(secs => u.seconds),
        u.attempt, u.outcome, u.status, u.milliseconds, u.said
    from unnest(
        p_topic_keys, p_subscription_keys, p_positions, p_created_at, p_seconds, p_attempts, p_outcomes, p_statuses, p_milliseconds, p_said
    ) with ordinality as u (
        topic_key, subscription_key, position, created_at, seconds, attempt, outcome, status, milliseconds, said, ordinal
    )
    order by u.ordinal;
end;
$$;
