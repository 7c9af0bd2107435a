-- Gives a schedule other settings, if nobody has changed it since p_revision. Without a p_next_at it fires when it would have; one that is
-- paused stays so.
create or replace function fastpubsub.update_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_payload json,
    p_attributes jsonb,
    p_ordering_key text,
    p_cron text,
    p_time_zone text,
    p_interval_seconds integer,
    p_catch_up text,
    p_next_at timestamptz,
    p_schema_version bigint default 0
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    perform fastpubsub.lock_schedule(p_topic_key, p_id, p_revision);
    update fastpubsub.schedules as s set
        revision = s.revision + 1,
        payload = p_payload,
        attributes = p_attributes,
        ordering_key = p_ordering_key,
        cron = p_cron,
        time_zone = p_time_zone,
        interval_seconds = p_interval_seconds,
        catch_up = p_catch_up,
        next_at = case when s.next_at is not null then coalesce(p_next_at, s.next_at) end,
        problem = null
    where s.topic_key = p_topic_key and s.id = p_id;
end;
$$;
