-- For a claim of a fair subscription: reads the log after p_after until p_until, and takes one message of each key
-- that is not busy, up to p_limit and p_max_bytes (with p_at_least_one, the first one whatever its size). What comes
-- after it of its key is put aside, and the key is in line at p_due_at, as one that is busy already. A message without
-- a key is a key of its own. `scanned` is how far the cursor can move, past those in `expired`.
create or replace function fastpubsub.read_log_fairly(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_fair_by text,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    p_due_at timestamptz,
    p_until timestamptz,
    p_now timestamptz,
    out positions bigint [],
    out size bigint,
    out scanned bigint,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- The most that a bundle has.
    c_step constant bigint := 1024;
    c_expired constant integer := 1000;
    -- Before it, messages may have been trimmed, and be left for vacuum.
    v_first bigint := fastpubsub.first_position(p_topic_key, p_last);
    -- More than one, to see of which keys there is more.
    v_step bigint := greatest(p_limit, 64);
    v_to bigint;
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_busy bigint;
    v_is_closed boolean := false;
begin
    positions := '{}';
    size := 0;
    scanned := p_after;
    filtered := 0;
    expired := '{}';
    loop
        v_to := least(p_last, read_log_fairly.scanned + v_step);
        -- Where the last stretch gave nothing, this one may not, either.
        if v_is_closed and fastpubsub.pass_fairly(p_topic_key, p_subscription_key, p_fair_by, read_log_fairly.scanned, v_to, v_first) then
            scanned := v_to;
            exit when read_log_fairly.scanned >= p_last or clock_timestamp() >= p_until;
            v_step := least(v_step * 2, c_step);
            continue;
        end if;
        if p_path is not null then
            select f.positions, f.unreadable into v_matching, v_unreadable
            from fastpubsub.matching_positions(p_topic_key, read_log_fairly.scanned, v_to, p_path, v_step::integer) as f;
        end if;
        with stretch as (
            select
                m.position, fastpubsub.fair_key(p_fair_by, m.ordering_key, m.attributes) as key_hash,
                pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true as is_expired
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > read_log_fairly.scanned and m.position <= v_to
        ),
        firsts as (
            select s.*, s.position = min(s.position) over (partition by s.key_hash) and s.key_hash is not null as is_first
            from stretch as s
        ),
        -- Asked once for a key: the last message of its last bundle is then the last that was put aside.
        marked as (
            select
                f.*,
                max(
                    case when f.is_first then (
                        select b.position
                        from (
                            select b.position from fastpubsub.bundles as b
                            where
                                b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = f.key_hash
                                and b.position >= v_first
                            order by b.position desc limit 1
                        ) as b
                        where
                            (
                                select k.position from fastpubsub.busy_keys as k
                                where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = b.position
                                limit 1
                            ) is not null
                    ) end
                ) over (partition by f.key_hash) as busy
            from firsts as f
        ),
        open as (
            select
                m.*, m.busy is null and (p_path is null or m.position in (select f from unnest(v_matching) as f)) as is_open
            from marked as m
        ),
        waiting as (
            select
                o.*,
                o.is_open and not o.is_expired
                and (
                    o.key_hash is null
                    or o.position = min(o.position) filter (where o.is_open and not o.is_expired) over (partition by o.key_hash)
                ) as is_waiting
            from open as o
        ),
        counted as (
            select
                w.*, count(*) filter (where w.is_waiting) over (order by w.position) as ordinal,
                sum(w.size) filter (where w.is_waiting) over (order by w.position) as running
            from waiting as w
        ),
        taken as materialized (
            select
                c.*,
                c.is_waiting and c.ordinal <= p_limit - cardinality(read_log_fairly.positions)
                and (
                    c.running <= p_max_bytes - read_log_fairly.size
                    or (p_at_least_one and c.ordinal = 1 and read_log_fairly.size = 0)
                ) as is_taken
            from counted as c
        ),
        reach as materialized (
            select coalesce(min(t.position) filter (where t.is_waiting and not t.is_taken) - 1, v_to) as position from taken as t
        ),
        passed as materialized (
            select
                t.*, max(t.position) over same_key as tail,
                case when t.key_hash is not null then max(t.position) filter (where t.is_taken) over same_key end as turn
            from taken as t
            where t.position <= (select r.position from reach as r)
            window same_key as (partition by t.key_hash)
        ),
        in_line as (
            insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
            select p_topic_key, p_subscription_key, p_due_at, min(p.position), 0, 'put aside', p.turn
            from passed as p where p.position > p.turn
            group by p.turn
        ),
        bundled as (
            insert into fastpubsub.bundles (topic_key, subscription_key, key_hash, position, positions)
            select p_topic_key, p_subscription_key, p.key_hash, max(p.position), array_agg(p.position)
            from passed as p where p.busy is not null or p.position > p.turn
            group by p.key_hash
        )
        select
            (select r.position from reach as r) as scanned,
            sum(p.size) filter (where p.is_taken) as size,
            array_agg(p.position order by p.position) filter (where p.is_taken) as positions,
            count(*) filter (
                where p.busy is null and not p.is_taken and not (p.is_open and p.is_expired) and (p.position > p.turn) is not true
            ) as filtered,
            array_agg(p.position order by p.position) filter (
                where p.is_open and p.is_expired and (p.position > p.turn) is not true
            ) as expired,
            array_agg(p.busy) filter (where p.busy is not null and p.position = p.tail) as busy,
            array_agg(p.tail) filter (where p.position = p.tail and (p.busy is not null or p.tail > p.turn)) as tails
        into v_read
        from passed as p;
        -- A join with the array would be planned by wrong statistics.
        foreach v_busy in array coalesce(v_read.busy, '{}') loop
            delete from fastpubsub.busy_keys as b
            where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_busy;
        end loop;
        insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
        select p_topic_key, p_subscription_key, u.position from unnest(v_read.tails) as u (position);
        positions := read_log_fairly.positions || v_read.positions;
        size := read_log_fairly.size + coalesce(v_read.size, 0);
        filtered := read_log_fairly.filtered + v_read.filtered;
        expired := read_log_fairly.expired || coalesce(v_read.expired, '{}');
        unreadable := read_log_fairly.unreadable || array(select u from unnest(v_unreadable) as u where u <= v_read.scanned);
        scanned := v_read.scanned;
        exit when
            read_log_fairly.scanned < v_to or cardinality(read_log_fairly.positions) >= p_limit or read_log_fairly.scanned >= p_last
            or clock_timestamp() >= p_until or cardinality(read_log_fairly.expired) >= c_expired;
        v_is_closed := v_read.positions is null and v_read.filtered = 0;
        v_step := least(v_step * 2, c_step);
    end loop;
end;
$$;
