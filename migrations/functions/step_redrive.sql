-- Goes on with a redrive: looks at up to p_scan dead letters and moves as many as the rate allows since the last step, one second's worth
-- at most. With a filter it judges for p_milliseconds, and one at least. Returns how many it moved, whether it has to be called again, and
-- the seconds until the rate allows more.
create or replace function fastpubsub.step_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint,
    p_limit integer,
    p_scan integer,
    p_now timestamptz default null,
    p_milliseconds integer default 20,
    out moved bigint,
    out running boolean,
    out next_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_redrive fastpubsub.redrives;
    v_now timestamptz;
    v_allowed integer := p_limit;
    v_seconds double precision;
    v_spent double precision := 0;
    v_positions bigint [];
    v_created_at timestamptz [];
    v_moved bigint [];
    v_path jsonpath;
    v_until timestamptz;
    v_letter record;
    v_looked integer := 0;
    v_last bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_now := coalesce(p_now, clock_timestamp());
    select r.* into v_redrive from fastpubsub.redrives as r
    where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key;
    moved := 0;
    running := found and v_redrive.state = 'running';
    next_seconds := 0;
    if not running then
        return;
    end if;
    if v_redrive.per_second is not null then
        v_seconds := least(1, greatest(0, extract(epoch from v_now - v_redrive.stepped_at)::double precision));
        v_allowed := least(p_limit, floor(v_seconds * v_redrive.per_second + 1e-6));
        if v_allowed = 0 then
            next_seconds := 1.0 / v_redrive.per_second - v_seconds;
            return;
        end if;
    end if;
    v_path := fastpubsub.compile_filter(v_redrive.filter);
    v_until := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    running := false;
    for v_letter in
        select
            d.position, d.created_at, d.payload, d.attributes, d.ordering_key,
            (v_redrive.reason is null or d.reason = v_redrive.reason)
            and (v_redrive.died_after is null or d.died_at >= v_redrive.died_after)
            and d.died_at < v_redrive.died_before as matches
        from fastpubsub.dead_letters as d
        where
            d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position >= v_redrive.next_position
        order by d.position
    loop
        v_looked := v_looked + 1;
        v_last := v_letter.position;
        if
            v_letter.matches
            and (
                v_path is null
                or fastpubsub.is_found(v_letter.payload, v_letter.attributes, v_path, null, null, null, v_letter.ordering_key)
            )
        then
            v_positions := v_positions || v_letter.position;
            v_created_at := v_created_at || v_letter.created_at;
        end if;
        running := v_looked >= p_scan or coalesce(cardinality(v_positions), 0) >= v_allowed
        or (v_path is not null and clock_timestamp() >= v_until);
        exit when step_redrive.running;
    end loop;
    if v_positions is not null then
        if v_redrive.action = 'purge' then
            v_moved := fastpubsub.purge_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at, p_now);
        else
            v_moved := fastpubsub.reprocess_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at, p_now);
        end if;
        moved := cardinality(v_moved);
        v_spent := coalesce(cardinality(v_positions) / v_redrive.per_second::double precision, 0);
    end if;
    -- What the rate had allowed before the last second is not made up for.
    update fastpubsub.redrives as r
    set
        done = r.done + moved,
        next_position = coalesce(v_last + 1, r.next_position),
        stepped_at = v_now - make_interval(secs => coalesce(v_seconds, 0) - v_spent),
        state = case when running then 'running' else 'done' end,
        ended_at = case when not running then v_now end
    where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key;
    if running and v_spent > 0 then
        next_seconds := greatest(0, 1.0 / v_redrive.per_second - v_seconds + v_spent);
    end if;
end;
$$;
