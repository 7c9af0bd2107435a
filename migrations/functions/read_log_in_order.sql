-- For a claim of an ordered subscription: reads the log after p_after, up to p_limit messages and p_max_bytes (with p_at_least_one, the
-- first one whatever its size), and until p_until. The messages of a key that is busy are put aside. `turns` are those of the keys, which
-- are busy from now on: 0 for a message that is all of its key, or has none. `scanned` is how far the cursor can move, past those in
-- `expired`, which had nothing of their key before them.
create or replace function fastpubsub.read_log_in_order(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    p_until timestamptz,
    p_now timestamptz,
    out positions bigint [],
    out turns bigint [],
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
    c_step constant bigint := 4096;
    c_expired constant integer := 1000;
    -- Before it, messages may have been trimmed, and be left for vacuum.
    v_first bigint := fastpubsub.first_position(p_topic_key, p_last);
    v_step bigint := p_limit;
    v_to bigint;
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_busy bigint;
    v_is_full boolean;
    v_is_closed boolean := false;
begin
    positions := '{}';
    turns := '{}';
    size := 0;
    scanned := p_after;
    filtered := 0;
    expired := '{}';
    loop
        v_to := least(p_last, read_log_in_order.scanned + v_step);
        -- Where the last stretch gave nothing, this one may not, either.
        if
            v_is_closed and fastpubsub.pass_busy_keys(p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first)
        then
            scanned := v_to;
            exit when v_to >= p_last or clock_timestamp() >= p_until;
            v_step := least(greatest(v_step, 64) * 2, c_step);
            continue;
        end if;
        if p_path is not null then
            select f.positions, f.unreadable into v_matching, v_unreadable
            from fastpubsub.matching_positions(p_topic_key, read_log_in_order.scanned, v_to, p_path, v_step::integer) as f;
        end if;
        with stretch as (
            select
                m.position, hashtextextended(m.ordering_key, 0) as key_hash,
                pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true as is_expired
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > read_log_in_order.scanned and m.position <= v_to
        ),
        firsts as (
            select s.*, s.position = min(s.position) over (partition by s.key_hash) and s.key_hash is not null as is_first
            from stretch as s
        ),
        -- Whether a key is busy is asked once, for its first message: the message before that one is then the last that the cursor passed.
        marked as (
            select
                f.*,
                max(
                    case when f.is_first then (
                        select k.position
                        from (
                            select k.position from fastpubsub.message_keys as k
                            where
                                k.topic_key = p_topic_key and k.key_hash = f.key_hash and k.position < f.position
                                and k.position >= v_first
                            order by k.position desc limit 1
                        ) as k
                        where
                            (
                                select b.position from fastpubsub.busy_keys as b
                                where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
                                limit 1
                            ) is not null
                            or (
                                select l.last_position >= k.position and l.turn = 0 from fastpubsub.leases as l
                                where
                                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                                    and l.position > k.position - 100 and l.position <= k.position
                                order by l.position desc limit 1
                            )
                            or k.position = any(read_log_in_order.positions)
                    ) end
                ) over (partition by f.key_hash) as busy
            from firsts as f
        ),
        open as (
            select
                m.*, m.busy is null and (p_path is null or m.position in (select f from unnest(v_matching) as f)) as is_open
            from marked as m
        ),
        counted as (
            select
                o.*, count(*) filter (where o.is_open and not o.is_expired) over (order by o.position) as ordinal,
                sum(o.size) filter (where o.is_open and not o.is_expired) over (order by o.position) as running
            from open as o
        ),
        taken as materialized (
            select
                c.*,
                c.is_open and not c.is_expired and c.ordinal <= p_limit - cardinality(read_log_in_order.positions)
                and (
                    c.running <= p_max_bytes - read_log_in_order.size
                    or (p_at_least_one and c.ordinal = 1 and read_log_in_order.size = 0)
                ) as is_taken
            from counted as c
        ),
        reach as materialized (
            select
                count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken) as is_full,
                case
                    when
                        count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken)
                        or count(*) filter (where t.is_taken) = p_limit - cardinality(read_log_in_order.positions)
                        then coalesce(max(t.position) filter (where t.is_taken), read_log_in_order.scanned)
                    else v_to
                end as position
            from taken as t
        )
        select
            (select r.position from reach as r) as scanned,
            (select r.is_full from reach as r) as is_full,
            sum(p.size) filter (where p.is_taken) as size,
            array_agg(p.position order by p.position) filter (where p.is_taken) as positions,
            array_agg(case when p.key_hash is null or p.is_single then 0 else p.tail end order by p.position)
                filter (where p.is_taken) as turns,
            count(*) filter (where p.busy is null and not p.is_taken and not (p.is_open and p.is_expired)) as filtered,
            array_agg(p.position order by p.position) filter (where p.is_open and p.is_expired) as expired,
            array_agg(p.busy order by p.busy) filter (where p.busy is not null and p.position = p.tail) as busy,
            array_agg(p.tail order by p.busy) filter (where p.busy is not null and p.position = p.tail) as tails
        into v_read
        from (
            select
                t.*, max(t.position) over same_key as tail,
                max(t.position) over same_key = t.position and count(*) filter (where t.is_taken) over same_key = 1 as is_single
            from taken as t
            where t.position <= (select r.position from reach as r)
            window same_key as (partition by t.key_hash)
        ) as p;
        -- A join with the array would be planned by wrong statistics.
        foreach v_busy in array coalesce(v_read.busy, '{}') loop
            delete from fastpubsub.busy_keys as b
            where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_busy;
        end loop;
        insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
        select p_topic_key, p_subscription_key, u.position
        from (
            select u.position from unnest(v_read.tails) as u (position)
            union all
            select distinct u.position from unnest(v_read.turns) as u (position) where u.position > 0
        ) as u;
        positions := read_log_in_order.positions || v_read.positions;
        turns := read_log_in_order.turns || v_read.turns;
        size := read_log_in_order.size + coalesce(v_read.size, 0);
        filtered := read_log_in_order.filtered + v_read.filtered;
        expired := read_log_in_order.expired || coalesce(v_read.expired, '{}');
        unreadable := read_log_in_order.unreadable || array(select u from unnest(v_unreadable) as u where u <= v_read.scanned);
        scanned := v_read.scanned;
        exit when
            v_read.is_full or cardinality(read_log_in_order.positions) >= p_limit or read_log_in_order.scanned >= p_last
            or clock_timestamp() >= p_until or cardinality(read_log_in_order.expired) >= c_expired;
        v_is_closed := v_read.positions is null and v_read.filtered = 0;
        v_step := least(greatest(v_step, 64) * 2, c_step);
    end loop;
end;
$$;
