-- Pauses a schedule, or resumes it with the time at which it fires next; twice is the same as once.
create or replace function fastpubsub.pause_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_next_at timestamptz default null,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    perform fastpubsub.lock_schedule(p_topic_key, p_id, p_revision);
    v_now := coalesce(p_now, clock_timestamp());
    update fastpubsub.schedules as s set
        revision = s.revision + 1,
        paused_at = case when p_next_at is null then coalesce(s.paused_at, v_now) end,
        next_at = case when p_next_at is not null then coalesce(s.next_at, p_next_at) end
    where s.topic_key = p_topic_key and s.id = p_id;
end;
$$;
