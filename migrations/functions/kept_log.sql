-- Returns what a subscription keeps of its topic beyond the retention: the messages from the oldest one that it needs, which is `ahead`,
-- `leased` or `waiting` (`state`), to the last one that is older than the retention. `bytes` is extrapolated from the size of at most 100
-- of them. A subscription that keeps nothing gets null and 0. The positions are the oldest of each state that the log still has, or null.
create or replace function fastpubsub.kept_log(
    p_topic_key bigint,
    p_ahead bigint,
    p_leased bigint,
    p_waiting bigint,
    p_retention_seconds bigint,
    p_now timestamptz default null,
    out kept_position bigint,
    out created_at timestamptz,
    out state text,
    out messages bigint,
    out bytes bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- The bytes of a row and its index entry, beside payload and attributes.
    c_row_bytes constant bigint := 80;
    c_samples constant bigint := 100;
    v_before timestamptz;
    v_end bigint;
begin
    messages := 0;
    bytes := 0;
    select coalesce(p_now, clock_timestamp()) - make_interval(secs => coalesce(h.retention_seconds, p_retention_seconds)) into v_before
    from fastpubsub.heads as h where h.topic_key = p_topic_key;
    select m.position, m.created_at, p.state into kept_log.kept_position, kept_log.created_at, kept_log.state
    from (values (p_ahead, 'ahead'), (p_leased, 'leased'), (p_waiting, 'waiting')) as p (position, state)
    cross join lateral (
        select m.position, m.created_at from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = p.position
        limit 1
    ) as m
    order by m.position
    limit 1;
    if kept_log.kept_position is null or kept_log.created_at >= v_before then
        kept_position := null;
        created_at := null;
        state := null;
        return;
    end if;
    v_end := fastpubsub.position_before(p_topic_key, v_before);
    messages := v_end - kept_log.kept_position + 1;
    select avg(c_row_bytes + pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) * kept_log.messages
    into kept_log.bytes
    from generate_series(kept_log.kept_position, v_end, greatest(kept_log.messages / c_samples, 1)) as s (position)
    cross join lateral (
        select m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = s.position
        limit 1
    ) as m;
end;
$$;
