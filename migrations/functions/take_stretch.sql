-- For read_log_in_order without a filter: all messages in (p_after, p_to] whose key is not busy, and those keys that are, as there. p_taken
-- are those that the same claim took before. `scanned` is null where this is not all there is to it: a message has
-- expired, or they do not fit into p_limit and p_max_bytes.
create or replace function fastpubsub.take_stretch(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint,
    p_first bigint,
    p_taken bigint [],
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
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
set enable_mergejoin = off
set enable_hashjoin = on
-- The keys are joined to the messages of the stretch, however few of both the statistics expect.
set enable_nestloop = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_is_all boolean;
begin
    with stretch as materialized (
        select
            m.position, hashtextextended(m.ordering_key, 0) as key_hash,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size, (m.expires_at <= p_now) is true as is_expired
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
    ),
    keys as materialized (
        select
            s.*,
            (
                select k.position
                from (
                    select k.position from fastpubsub.message_keys as k
                    where k.topic_key = p_topic_key and k.key_hash = s.key_hash and k.position < s.first_position and k.position >= p_first
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
            ) as busy
        from (
            select
                s.key_hash, min(s.position) as first_position, max(s.position) as last_position, count(*) as messages
            from stretch as s
            where s.key_hash is not null
            group by s.key_hash
        ) as s
    )
    select
        sum(s.size) filter (where k.busy is null),
        array_agg(s.position order by s.position) filter (where k.busy is null),
        array_agg(case when k.messages > 1 then k.last_position else -1 end order by s.position) filter (where k.busy is null),
        (select array_agg(b.busy order by b.busy) from keys as b where b.busy is not null),
        (select array_agg(b.last_position order by b.busy) from keys as b where b.busy is not null),
        coalesce(not bool_or(s.is_expired), true)
    into take_stretch.size, take_stretch.positions, take_stretch.turns, take_stretch.busy, take_stretch.tails, v_is_all
    from stretch as s
    left join keys as k on k.key_hash = s.key_hash;
    scanned := case
        when
            v_is_all and coalesce(cardinality(take_stretch.positions), 0) <= p_limit and coalesce(take_stretch.size, 0) <= p_max_bytes
            then p_to
    end;
    is_full := false;
    filtered := 0;
end;
$$;
