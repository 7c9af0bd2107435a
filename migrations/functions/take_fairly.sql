-- For a claim of a fair subscription, p_settings, after the log p_after and the floor of its retries: up to p_limit
-- messages and p_max_bytes. First comes the log, with a message of each key that is new; then the line, where what is
-- due again and the keys that have something put aside stand, each with an equal share, until all is handed out or
-- nobody waits. Those in line keep a place each, half of all at most. `scanned`, `due_at` and `retry_position` are
-- where the next claim goes on, `is_cut` says that it has something at once. What has expired is in `expired` instead,
-- with the attempts that it had.
create or replace function fastpubsub.take_fairly(
    p_settings fastpubsub.cursors,
    p_after bigint,
    p_last bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_sequence bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_until timestamptz,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out revived boolean [],
    out ordering_keys text [],
    out unreadable bigint [],
    out unreadable_created_at timestamptz [],
    out expired bigint [],
    out expired_attempts integer [],
    out scanned bigint,
    out due_at timestamptz,
    out retry_position bigint,
    out routed integer,
    out filtered integer,
    out is_cut boolean
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_looked_at constant integer := 1000;
    v_topic_key bigint := p_settings.topic_key;
    v_subscription_key bigint := p_settings.subscription_key;
    v_waiting integer;
    v_log record;
    v_new bigint [] := '{}';
    v_left integer;
    v_bytes bigint := 0;
    v_looked_at integer := 0;
    v_part record;
    v_is_due boolean := true;
begin
    positions := '{}';
    attempts := '{}';
    expired := '{}';
    expired_attempts := '{}';
    scanned := p_after;
    due_at := p_floor_due_at;
    retry_position := p_floor_position;
    routed := 0;
    filtered := 0;
    select count(*) into v_waiting
    from (
        select from fastpubsub.retries as r
        where
            r.topic_key = v_topic_key and r.subscription_key = v_subscription_key
            and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
            and r.due_at <= greatest(p_now, p_floor_due_at + interval '1 microsecond')
        order by r.due_at, r.position
        limit p_limit
    ) as r;
    -- One message at a time comes from the log and from the line in turns.
    v_left := p_limit - least(v_waiting, (p_limit + p_sequence % 2) / 2);
    if v_left > 0 and p_after < p_last then
        v_log := fastpubsub.read_log_fairly(
            v_topic_key, v_subscription_key, p_settings.fair_by, p_after, p_last, p_settings.filter_path, v_left, p_max_bytes, true,
            greatest(p_now, p_floor_due_at + interval '1 microsecond'), p_until, p_now
        );
        scanned := v_log.scanned;
        v_new := v_log.positions;
        v_bytes := v_log.size;
        routed := cardinality(v_new) + cardinality(v_log.expired);
        filtered := v_log.filtered;
        expired := v_log.expired;
        expired_attempts := array_fill(0, array[cardinality(v_log.expired)]);
        unreadable := v_log.unreadable;
    end if;
    loop
        v_left := p_limit - cardinality(v_new) - cardinality(take_fairly.positions);
        exit when
            v_left = 0 or v_bytes >= p_max_bytes or v_looked_at >= c_looked_at or cardinality(take_fairly.expired) >= c_looked_at;
        v_part := fastpubsub.take_in_line(
            v_topic_key, v_subscription_key, p_settings.fair_by, take_fairly.due_at, take_fairly.retry_position, p_settings.filter_path,
            v_left, p_max_bytes - v_bytes, greatest(p_now, take_fairly.due_at + interval '1 microsecond')
        );
        v_is_due := v_part.retry_position is not null;
        exit when not v_is_due;
        due_at := v_part.due_at;
        retry_position := v_part.retry_position;
        positions := take_fairly.positions || v_part.positions;
        attempts := take_fairly.attempts || v_part.attempts;
        v_bytes := v_bytes + v_part.size;
        v_looked_at := v_looked_at + v_part.filtered;
        routed := take_fairly.routed + v_part.routed;
        filtered := take_fairly.filtered + v_part.filtered;
        expired := take_fairly.expired || v_part.expired;
        expired_attempts := take_fairly.expired_attempts || v_part.expired_attempts;
        unreadable := take_fairly.unreadable || v_part.unreadable;
    end loop;
    is_cut := v_left > 0 and v_is_due;
    positions := v_new || take_fairly.positions;
    attempts := array_fill(1, array[cardinality(v_new)]) || take_fairly.attempts;
    -- In the order of the log, in which neighbors share a lease.
    select
        array_agg(u.position order by u.position), array_agg(u.attempts order by u.position),
        array_agg(coalesce(m.created_at, v.created_at) order by u.position), array_agg(coalesce(m.payload, v.payload) order by u.position),
        array_agg(coalesce(m.attributes, v.attributes) order by u.position),
        array_agg(coalesce(m.ordering_key, v.ordering_key) order by u.position),
        array_agg(v.position is not null order by u.position)
    into
        take_fairly.positions, take_fairly.attempts, take_fairly.created_at, take_fairly.payloads, take_fairly.attributes,
        take_fairly.ordering_keys, take_fairly.revived
    from unnest(take_fairly.positions, take_fairly.attempts) as u (position, attempts)
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = v_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.position, v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = v_topic_key and v.subscription_key = v_subscription_key and v.position = u.position
        limit 1
    ) as v on true;
    positions := coalesce(take_fairly.positions, '{}');
    select array_agg(m.position), array_agg(m.created_at)
    into take_fairly.unreadable, take_fairly.unreadable_created_at
    from unnest(take_fairly.unreadable) as u (position)
    cross join lateral (
        select m.position, m.created_at from fastpubsub.messages as m
        where m.topic_key = v_topic_key and m.position = u.position
        limit 1
    ) as m;
end;
$$;
