-- Lists up to p_limit schedules that are due, the longest overdue first, with what is needed to reckon when they fire next. Looks back
-- p_look_back_seconds, null for any time: a row that moves on leaves its old place in the index behind, as long as anybody may see it.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_due_schedules(
    p_limit integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (
    topic_key bigint,
    topic_id text,
    id text,
    revision bigint,
    payload json,
    cron text,
    time_zone text,
    interval_seconds integer,
    catch_up text,
    next_at timestamptz,
    looked_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from timestamptz := coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity');
begin
    return query
    select
        s.topic_key, t.id, s.id, s.revision, s.payload, s.cron, s.time_zone, s.interval_seconds, s.catch_up, s.next_at, v_now
    from fastpubsub.schedules as s
    inner join fastpubsub.topics as t on t.topic_key = s.topic_key
    where s.next_at >= v_from and s.next_at <= v_now and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    order by s.next_at
    limit p_limit;
end;
$$;
