-- Looks at the log after p_after for up to p_limit matching messages, bounded by rows, bytes and time. `scanned` is how far it came: a
-- position up to there that is not in `positions` does not match.
create or replace function fastpubsub.scan_log(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_rows bigint,
    p_milliseconds integer,
    out positions bigint [],
    out scanned bigint,
    out unreadable bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_step_bytes constant bigint := 1048576;
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_step bigint := 256;
    v_started timestamptz;
    v_to bigint;
    v_found record;
begin
    positions := '{}';
    unreadable := '{}';
    scanned := p_after;
    loop
        v_started := clock_timestamp();
        select max(s.position) into v_to
        from (
            select m.position, sum(pg_column_size(m.payload)) over (order by m.position) - pg_column_size(m.payload) as before
            from fastpubsub.messages as m
            where
                m.topic_key = p_topic_key and m.position > scan_log.scanned
                and m.position <= least(p_last, scan_log.scanned + v_step, p_after + p_rows)
        ) as s
        where s.before < c_step_bytes;
        exit when v_to is null;
        v_found := fastpubsub.matching_positions(
            p_topic_key, scan_log.scanned, v_to, p_path, p_limit - cardinality(scan_log.positions)
        );
        positions := scan_log.positions || v_found.positions;
        unreadable := scan_log.unreadable || v_found.unreadable;
        if cardinality(scan_log.positions) >= p_limit then
            scanned := scan_log.positions[p_limit];
            exit;
        end if;
        scanned := v_to;
        exit when scan_log.scanned >= least(p_last, p_after + p_rows) or clock_timestamp() >= v_until;
        if clock_timestamp() - v_started < interval '2 milliseconds' then
            v_step := least(v_step * 2, 4096);
        elsif clock_timestamp() - v_started > interval '5 milliseconds' then
            v_step := greatest(v_step / 2, 16);
        end if;
    end loop;
end;
$$;
