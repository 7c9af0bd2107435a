-- Counts the schedules of all topics: that fire, that are paused, and whose last time could not be published; and for how many seconds the
-- first one is overdue. For metrics and `fastpubsub doctor`; writes nothing. p_topic_keys, when not null, holds the only
-- topics whose nodes answer.
create or replace function fastpubsub.inspect_schedules(
    p_now timestamptz default null,
    p_topic_keys bigint [] default null,
    out active bigint,
    out paused bigint,
    out failing bigint,
    out overdue_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select
        count(*) filter (where s.next_at is not null), count(*) filter (where s.next_at is null), count(s.problem),
        greatest(coalesce(extract(epoch from coalesce(p_now, clock_timestamp()) - min(s.next_at)), 0), 0)
    into
        inspect_schedules.active, inspect_schedules.paused, inspect_schedules.failing, inspect_schedules.overdue_seconds
    from fastpubsub.schedules as s
    where (p_topic_keys is null or s.topic_key = any(p_topic_keys));
end;
$$;
