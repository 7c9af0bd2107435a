-- Lists the schedules of a topic by id, after p_after; with p_id only that one.
create or replace function fastpubsub.list_schedules(
    p_topic_key bigint,
    p_id text,
    p_after text,
    p_limit integer
) returns table (
    id text,
    revision bigint,
    payload json,
    attributes jsonb,
    ordering_key text,
    cron text,
    time_zone text,
    interval_seconds integer,
    catch_up text,
    created_at timestamptz,
    paused_at timestamptz,
    next_at timestamptz,
    last_fired_at timestamptz,
    last_position bigint,
    fired bigint,
    missed bigint,
    problem text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    return query
    select
        s.id, s.revision, s.payload, s.attributes, s.ordering_key, s.cron, s.time_zone, s.interval_seconds, s.catch_up, s.created_at,
        s.paused_at, s.next_at, s.last_fired_at, s.last_position, s.fired, s.missed, s.problem
    from fastpubsub.schedules as s
    where
        s.topic_key = p_topic_key and (p_id is null or s.id = p_id)
        and (p_after is null or s.id collate "C" > p_after)
    order by s.id collate "C"
    limit p_limit;
end;
$$;
