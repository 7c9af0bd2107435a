-- The usual case of claim_messages_2: no retry is due, and the stretch of the log after the cursor can be handed out as it is, because none
-- of its messages has expired or is larger than its share of p_max_bytes. Else `is_usual` is not true, and nothing was done. The caller
-- holds the cursor of a subscription without order, sharing, filter and limits. Few plain statements, since starting one costs more than
-- what it does. Where nothing is after the cursor, nothing is written.
create or replace function fastpubsub.claim_stretch(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_now timestamptz,
    p_ack_deadline_seconds integer,
    out is_usual boolean,
    out token bigint,
    out expires_at timestamptz,
    out lease_seconds integer,
    out scanned bigint,
    out last bigint,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
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
    v_cursor record;
    v_random text;
    v_limit integer := 0;
    v_size integer;
    v_found integer;
    v_end integer := 0;
    v_start integer;
    v_firsts bigint [];
    v_lasts bigint [];
    v_consumer_ids text [];
begin
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped, c.filtered, c.full_at, c.ttl_expired,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= p_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if v_cursor.is_due is not false then
        return;
    end if;
    scanned := v_cursor.position;
    last := greatest(v_cursor.last, v_cursor.position);
    if claim_stretch.last = v_cursor.position then
        is_usual := true;
        return;
    end if;

    foreach v_size in array p_limits loop
        v_limit := v_limit + v_size;
    end loop;
    select
        count(*), array_agg(m.position), array_agg(m.created_at), array_agg(m.payload) filter (where m.fits),
        array_agg(m.attributes) filter (where m.fits), case when count(m.ordering_key) > 0 then array_agg(m.ordering_key) end,
        bool_and(m.fits and (m.expires_at > p_now) is not false)
        -- As everywhere: positions are dense.
        and max(m.position) = v_cursor.position + count(*)
    into v_found, positions, created_at, payloads, attributes, ordering_keys, is_usual
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
            -- Sizes are known without reading what is stored out of line.
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) <= p_max_bytes / v_limit as fits
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > v_cursor.position and m.position <= v_cursor.position + v_limit
        order by m.position
    ) as m;
    if claim_stretch.is_usual is not true then
        return;
    end if;

    for i in 1..cardinality(p_limits) loop
        v_start := v_end;
        v_end := least(v_end + p_limits[i], v_found);
        while v_start < v_end loop
            v_firsts := v_firsts || v_cursor.position + v_start + 1;
            v_start := least(v_start + 100, v_end);
            v_lasts := v_lasts || v_cursor.position + v_start;
            v_consumer_ids := v_consumer_ids || p_consumer_ids[i];
        end loop;
    end loop;
    v_random := gen_random_uuid()::text;
    token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
    lease_seconds := p_ack_deadline_seconds;
    expires_at := p_now + make_interval(secs => p_ack_deadline_seconds);
    scanned := v_cursor.position + v_found;
    attempts := array_fill(1, array[v_found]);
    if cardinality(v_firsts) = 1 then
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
        ) values (
            p_topic_key, p_subscription_key, v_firsts[1], v_lasts[1], claim_stretch.token, p_now, claim_stretch.expires_at, 1, false,
            v_consumer_ids[1]
        );
    else
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.first_position, r.last_position, claim_stretch.token, p_now,
            claim_stretch.expires_at, 1, false, r.consumer_id
        from unnest(v_firsts, v_lasts, v_consumer_ids) as r (first_position, last_position, consumer_id);
    end if;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, full_at,
        ttl_expired
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, claim_stretch.scanned, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_found, v_cursor.purged, v_cursor.dropped, v_cursor.filtered, v_cursor.full_at, v_cursor.ttl_expired
    );
end;
$$;
