-- For read_log_in_order: looks at each message in (p_after, p_to], of which p_matching pass the filter p_path, up to p_limit messages and
-- p_max_bytes. `scanned` is how far it came, `is_full` says that there was more. `busy` has the message of each busy key that
-- says so, in order, and `tails` the last one of the key up to there. p_taken are those that the same claim took before.
create or replace function fastpubsub.judge_stretch(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint,
    p_first bigint,
    p_taken bigint [],
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    p_at_least_one boolean,
    p_path jsonpath,
    p_matching bigint [],
    out scanned bigint,
    out is_full boolean,
    out size bigint,
    out positions bigint [],
    out turns bigint [],
    out filtered integer,
    out busy bigint [],
    out tails bigint [],
    out expired bigint []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    with stretch as (
        select
            m.position, hashtextextended(m.ordering_key, 0) as key_hash,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
            (m.expires_at <= p_now) is true as is_expired
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
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
                            and k.position >= p_first
                        order by k.position desc limit 1
                    ) as k
                    where
                        (
                            select b.position from fastpubsub.busy_keys as b
                            where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
                            limit 1
                        ) is not null
                        or (
                            select l.last_position >= k.position and l.turn <= 0 from fastpubsub.leases as l
                            where
                                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                                and l.position > k.position - 100 and l.position <= k.position
                            order by l.position desc limit 1
                        )
                        or k.position = any(p_taken)
                ) end
            ) over (partition by f.key_hash) as busy
        from firsts as f
    ),
    open as (
        select
            m.*, m.busy is null and (p_path is null or m.position in (select f from unnest(p_matching) as f)) as is_open
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
            c.is_open and not c.is_expired and c.ordinal <= p_limit
            and (
                c.running <= p_max_bytes
                or (p_at_least_one and c.ordinal = 1)
            ) as is_taken
        from counted as c
    ),
    reach as materialized (
        select
            count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken) as is_full,
            case
                when
                    count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken)
                    or count(*) filter (where t.is_taken) = p_limit
                    then coalesce(max(t.position) filter (where t.is_taken), p_after)
                else p_to
            end as position
        from taken as t
    )
    select
        (select r.position from reach as r) as scanned,
        (select r.is_full from reach as r) as is_full,
        sum(p.size) filter (where p.is_taken) as size,
        array_agg(p.position order by p.position) filter (where p.is_taken) as positions,
        array_agg(case when p.key_hash is null or p.is_single then -1 else p.tail end order by p.position)
            filter (where p.is_taken) as turns,
        count(*) filter (where p.busy is null and not p.is_taken and not (p.is_open and p.is_expired)) as filtered,
        array_agg(p.position order by p.position) filter (where p.is_open and p.is_expired) as expired,
        array_agg(p.busy order by p.busy) filter (where p.busy is not null and p.position = p.tail) as busy,
        array_agg(p.tail order by p.busy) filter (where p.busy is not null and p.position = p.tail) as tails
    into
        judge_stretch.scanned, judge_stretch.is_full, judge_stretch.size, judge_stretch.positions, judge_stretch.turns,
        judge_stretch.filtered, judge_stretch.expired, judge_stretch.busy, judge_stretch.tails
    from (
        select
            t.*, max(t.position) over same_key as tail,
            max(t.position) over same_key = t.position and count(*) filter (where t.is_taken) over same_key = 1 as is_single
        from taken as t
        where t.position <= (select r.position from reach as r)
        window same_key as (partition by t.key_hash)
    ) as p;
end;
$$;
