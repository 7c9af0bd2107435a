-- Creates a schedule that fires at p_next_at for the first time; a topic has at most p_limit. p_schema_version is the version of the
-- topic's schema that the payload was checked by, as in publish_messages.
create or replace function fastpubsub.create_schedule(
    p_topic_key bigint,
    p_id text,
    p_payload json,
    p_attributes jsonb,
    p_ordering_key text,
    p_cron text,
    p_time_zone text,
    p_interval_seconds integer,
    p_catch_up text,
    p_next_at timestamptz,
    p_limit integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    if exists (select from fastpubsub.schedules as s where s.topic_key = p_topic_key and s.id = p_id) then
        raise exception using errcode = 'FP409', message = format('schedule "%s" of this topic already exists', p_id);
    elsif (select count(*) from fastpubsub.schedules as s where s.topic_key = p_topic_key) >= p_limit then
        raise exception using errcode = 'FP422', message = format('a topic has at most %s schedules', p_limit);
    end if;
    insert into fastpubsub.schedules as s (
        topic_key, id, payload, attributes, ordering_key, cron, time_zone, interval_seconds, catch_up, next_at, created_at
    ) values (
        p_topic_key, p_id, p_payload, p_attributes, p_ordering_key, p_cron, p_time_zone, p_interval_seconds, p_catch_up, p_next_at,
        coalesce(p_now, clock_timestamp())
    )
    returning s.created_at into create_schedule.created_at;
end;
$$;
