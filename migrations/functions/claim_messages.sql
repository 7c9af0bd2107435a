-- Leases up to sum(p_limits) messages to the waiting consumers, the first p_limits[1] to p_consumer_ids[1] and so on: due retries
-- first, then the log after the cursor. May be lost in a crash: then the messages are ahead again, and `token` makes the holder
-- harmless. `scanned` and `last` tell an empty answer from one that only ran out of its share of time.
create or replace function fastpubsub.claim_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_rows bigint default 50000,
    p_scan_milliseconds integer default 20,
    p_now timestamptz default null,
    out token bigint,
    out expires_at timestamptz,
    out scanned bigint,
    out last bigint,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out unreadable bigint [],
    out unreadable_created_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_limit integer;
    v_bytes bigint := 0;
    v_due_at timestamptz [];
    v_revived boolean [];
    v_log record;
    v_from_log bigint := 0;
begin
    -- An empty poll writes nothing: look without a lock whether there is anything to do.
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    scanned := v_cursor.position;
    last := v_cursor.position;
    if
        not exists (
            select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_cursor.position + 1
        )
        and not exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.due_at <= v_now
        )
    then
        return;
    end if;

    perform fastpubsub.begin_call(false);
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select sum(l) into v_limit from unnest(p_limits) as l;
    last := fastpubsub.last_position(p_topic_key);

    select
        array_agg(t.due_at), array_agg(t.position), array_agg(t.attempts + 1), array_agg(t.created_at), array_agg(t.payload),
        array_agg(t.attributes), array_agg(t.revived), sum(t.size)
    into
        v_due_at, claim_messages.positions, claim_messages.attempts, claim_messages.created_at, claim_messages.payloads,
        claim_messages.attributes, v_revived, v_bytes
    from (
        select
            w.*, sum(w.size) over (order by w.due_at, w.position) as running,
            row_number() over (order by w.due_at, w.position) as ordinal
        from (
            select
                r.due_at, r.position, r.attempts, v.position is not null as revived,
                coalesce(m.created_at, v.created_at) as created_at, coalesce(m.payload, v.payload) as payload,
                coalesce(m.attributes, v.attributes) as attributes,
                pg_column_size(coalesce(m.payload, v.payload))
                + coalesce(pg_column_size(coalesce(m.attributes, v.attributes)), 0) as size
            from (
                select r.due_at, r.position, r.attempts from fastpubsub.retries as r
                where
                    r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                    and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.due_at <= v_now
                order by r.due_at, r.position
                limit v_limit
            ) as r
            left join lateral (
                select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = r.position
                limit 1
            ) as m on true
            left join lateral (
                select v.position, v.created_at, v.payload, v.attributes from fastpubsub.revived as v
                where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
                limit 1
            ) as v on true
        ) as w
        order by w.due_at, w.position
    ) as t
    where t.running <= p_max_bytes or t.ordinal = 1 or t.payload is null;
    v_bytes := coalesce(v_bytes, 0);
    if claim_messages.positions is not null then
        if array_position(claim_messages.created_at, null) is not null then
            raise exception using
                errcode = 'FP500',
                message = format(
                    'position %s of topic_key %s waits for subscription_key %s and has no payload',
                    claim_messages.positions[array_position(claim_messages.created_at, null)], p_topic_key, p_subscription_key
                );
        end if;
        delete from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and (r.due_at, r.position)
            <= (v_due_at[cardinality(v_due_at)], claim_messages.positions[cardinality(v_due_at)]);
        v_cursor.retry_due_at := v_due_at[cardinality(v_due_at)];
        v_cursor.retry_position := claim_messages.positions[cardinality(v_due_at)];
        v_limit := v_limit - cardinality(v_due_at);
    else
        positions := '{}';
        attempts := '{}';
        created_at := '{}';
        payloads := '{}';
        attributes := '{}';
        v_revived := '{}';
    end if;

    if v_limit > 0 and v_bytes < p_max_bytes and v_cursor.position < last then
        if v_settings.filter_path is null then
            select
                array_agg(t.position) as positions, array_agg(t.created_at) as created_at, array_agg(t.payload) as payloads,
                array_agg(t.attributes) as attributes
            into v_log
            from (
                select
                    m.position, m.created_at, m.payload, m.attributes,
                    sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
                from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > v_cursor.position and m.position <= v_cursor.position + v_limit
                order by m.position
            ) as t
            where t.running <= p_max_bytes - v_bytes or (v_bytes = 0 and t.position = v_cursor.position + 1);
            v_cursor.position := coalesce(v_log.positions[cardinality(v_log.positions)], v_cursor.position);
        else
            select s.positions, s.scanned, s.unreadable into v_log
            from fastpubsub.scan_log(
                p_topic_key, v_cursor.position, last, v_settings.filter_path, v_limit, p_scan_rows, p_scan_milliseconds
            ) as s;
            if cardinality(v_log.unreadable) > 0 then
                select array_agg(m.position), array_agg(m.created_at)
                into claim_messages.unreadable, claim_messages.unreadable_created_at
                from unnest(v_log.unreadable) as u (position)
                cross join lateral (
                    select m.position, m.created_at from fastpubsub.messages as m
                    where m.topic_key = p_topic_key and m.position = u.position
                    limit 1
                ) as m;
            end if;
            v_cursor.position := v_log.scanned;
            v_from_log := cardinality(v_log.positions);
            select
                array_agg(t.position) as positions, array_agg(t.created_at) as created_at, array_agg(t.payload) as payloads,
                array_agg(t.attributes) as attributes
            into v_log
            from (
                select
                    m.position, m.created_at, m.payload, m.attributes,
                    sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running,
                    row_number() over (order by m.position) as ordinal
                from unnest(v_log.positions) as p (position)
                cross join lateral (
                    select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
                    where m.topic_key = p_topic_key and m.position = p.position
                    limit 1
                ) as m
                order by m.position
            ) as t
            where t.running <= p_max_bytes - v_bytes or (v_bytes = 0 and t.ordinal = 1);
            if coalesce(cardinality(v_log.positions), 0) < v_from_log then
                v_cursor.position := coalesce(v_log.positions[cardinality(v_log.positions)], claim_messages.scanned);
            end if;
        end if;
        if v_log.positions is not null then
            v_from_log := cardinality(v_log.positions);
            positions := claim_messages.positions || v_log.positions;
            attempts := claim_messages.attempts || array_fill(1, array[v_from_log::integer]);
            created_at := claim_messages.created_at || v_log.created_at;
            payloads := claim_messages.payloads || v_log.payloads;
            attributes := claim_messages.attributes || v_log.attributes;
            v_revived := v_revived || array_fill(false, array[v_from_log::integer]);
        else
            v_from_log := 0;
        end if;
    end if;
    scanned := v_cursor.position;

    if cardinality(claim_messages.positions) > 0 then
        token := ('x' || left(gen_random_uuid()::text, 8) || right(gen_random_uuid()::text, 8))::bit(64)::bigint;
        expires_at := v_now + make_interval(secs => v_settings.ack_deadline_seconds);
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, token, expires_at, created_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, u.position, claim_messages.token, claim_messages.expires_at,
            u.created_at, u.attempts, u.revived, w.consumer_id
        from unnest(claim_messages.positions, claim_messages.created_at, claim_messages.attempts, v_revived)
            with ordinality as u (position, created_at, attempts, revived, ordinal)
        inner join (
            select c.consumer_id, sum(c.size) over (order by c.ordinal) - c.size as low, sum(c.size) over (order by c.ordinal) as high
            from unnest(p_consumer_ids, p_limits) with ordinality as c (consumer_id, size, ordinal)
        ) as w on u.ordinal > w.low and u.ordinal <= w.high;
    end if;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, v_cursor.position, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_from_log, v_cursor.purged, v_cursor.dropped
    );
end;
$$;
