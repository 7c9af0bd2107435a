-- Leases up to sum(p_limits) messages to the waiting consumers: the first p_limits[1] to p_consumer_ids[1], and so on. Due retries come
-- first, then the log after the cursor. A crash may lose a claim: then its messages are ahead again, and `token` makes the ack ids of the
-- consumer stale. `scanned` and `last` tell an empty answer from one that ran out of its share of time. A subscription that is `paused`
-- hands out nothing. One that is pushed is claimed with p_is_push, and no other is. For an ordered subscription this is claim_in_order.
-- Messages that have expired are passed and handed to nobody: `ttl_expired` counts those that are dropped, `dead_lettered` those that
-- became dead letters.
-- `limited_seconds`: in how many seconds it is worth asking again, when a limit of the subscription kept messages back; 0 when
-- something else is due in an ordered one.
create or replace function fastpubsub.claim_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_rows bigint default 50000,
    p_scan_milliseconds integer default 20,
    p_now timestamptz default null,
    p_is_push boolean default false,
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
    out unreadable_created_at timestamptz [],
    out lease_seconds integer,
    out filtered bigint,
    out paused boolean,
    out ordering_keys text [],
    out shares integer [],
    out limited_seconds double precision,
    out ttl_expired integer,
    out dead_lettered integer
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
    v_cursor record;
    v_limit integer;
    v_room integer;
    v_first_leased bigint;
    v_seconds double precision;
    v_ends bigint [];
    v_log record;
    v_found integer;
    v_from_log integer := 0;
    v_before bigint;
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_scan_milliseconds / 1000.0);
    v_expires_at timestamptz [];
    v_passed record;
    v_expired bigint [] := '{}';
    v_expired_attempts integer [] := '{}';
    v_expired_now bigint [];
    v_expired_now_attempts integer [];
    v_fair record;
    v_revived boolean [] := '{}';
    v_bytes bigint := 0;
    v_random text;
begin
    -- An empty poll writes nothing, so first check for work without a lock.
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped, c.filtered,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    scanned := v_cursor.position;
    last := greatest(v_cursor.last, v_cursor.position);
    if v_cursor.position is null or (claim_messages_2.last = v_cursor.position and not v_cursor.is_due) then
        paused := fastpubsub.is_paused(p_topic_key, p_subscription_key, p_is_push);
        return;
    end if;

    perform fastpubsub.begin_call(false);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key, true);
    paused := v_settings.topic_key is null;
    if claim_messages_2.paused then
        return;
    end if;
    if coalesce(v_settings.is_pushed, false) <> p_is_push then
        perform fastpubsub.refuse_claim(not p_is_push);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if v_settings.max_in_flight is not null or v_settings.rate_limit is not null then
        select r.room, r.first_leased, r.seconds into v_room, v_first_leased, v_seconds
        from fastpubsub.room_to_claim(
            p_topic_key, p_subscription_key, v_settings.max_in_flight, v_settings.rate_limit, v_now
        ) as r;
        if v_room = 0 then
            limited_seconds := v_seconds;
            return;
        end if;
    end if;
    if v_settings.ordered then
        v_log := fastpubsub.claim_in_order(
            v_settings, p_limits, p_consumer_ids, p_max_bytes, p_scan_milliseconds, v_now, v_room, v_first_leased
        );
        token := v_log.token;
        expires_at := v_log.expires_at;
        lease_seconds := v_settings.ack_deadline_seconds;
        scanned := v_log.scanned;
        last := v_log.last;
        positions := v_log.positions;
        attempts := v_log.attempts;
        created_at := v_log.created_at;
        payloads := v_log.payloads;
        attributes := v_log.attributes;
        unreadable := v_log.unreadable;
        unreadable_created_at := v_log.unreadable_created_at;
        filtered := v_log.filtered;
        ordering_keys := v_log.ordering_keys;
        shares := v_log.shares;
        limited_seconds := case when v_log.is_cut then 0 end;
        ttl_expired := v_log.ttl_expired;
        dead_lettered := v_log.dead_lettered;
        if cardinality(claim_messages_2.positions) = v_room then
            limited_seconds := v_seconds;
        end if;
        return;
    elsif v_room is null and not v_cursor.is_due and v_settings.filter_path is null and v_settings.fair_by is null then
        v_log := fastpubsub.claim_stretch(
            p_topic_key, p_subscription_key, p_limits, p_consumer_ids, p_max_bytes, v_now, v_settings.ack_deadline_seconds
        );
        if v_log.is_usual then
            token := v_log.token;
            expires_at := v_log.expires_at;
            lease_seconds := v_log.lease_seconds;
            scanned := v_log.scanned;
            last := v_log.last;
            positions := v_log.positions;
            attempts := v_log.attempts;
            created_at := v_log.created_at;
            payloads := v_log.payloads;
            attributes := v_log.attributes;
            ordering_keys := v_log.ordering_keys;
            filtered := 0;
            ttl_expired := 0;
            return;
        end if;
    end if;
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped, c.filtered, c.leased_from, c.full_at,
        c.ttl_expired,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    last := greatest(v_cursor.last, v_cursor.position);
    v_before := v_cursor.position;
    if cardinality(p_limits) = 1 then
        v_ends := p_limits;
    else
        select array_agg(l.sum) into v_ends
        from (select sum(u.size) over (order by u.ordinal) from unnest(p_limits) with ordinality as u (size, ordinal)) as l;
    end if;
    v_limit := least(v_ends[cardinality(v_ends)], v_room);

    positions := '{}';
    if v_settings.fair_by is not null then
        v_fair := fastpubsub.take_fairly(
            v_settings, v_cursor.position, last, v_cursor.retry_due_at, v_cursor.retry_position, v_cursor.sequence, v_limit, p_max_bytes,
            v_until, v_now
        );
        v_cursor.position := v_fair.scanned;
        v_cursor.retry_due_at := v_fair.due_at;
        v_cursor.retry_position := v_fair.retry_position;
        positions := v_fair.positions;
        attempts := v_fair.attempts;
        created_at := v_fair.created_at;
        payloads := v_fair.payloads;
        attributes := v_fair.attributes;
        ordering_keys := v_fair.ordering_keys;
        v_revived := v_fair.revived;
        unreadable := v_fair.unreadable;
        unreadable_created_at := v_fair.unreadable_created_at;
        v_expired := v_fair.expired;
        v_expired_attempts := v_fair.expired_attempts;
        v_from_log := v_fair.routed;
        limited_seconds := case when v_fair.is_cut then 0 end;
    elsif v_cursor.is_due and v_limit > 0 then
        select
            r.positions, r.attempts, r.created_at, r.payloads, r.attributes, r.revived, r.due_at, r.size, r.ordering_keys, r.expires_at
        into
            claim_messages_2.positions, claim_messages_2.attempts, claim_messages_2.created_at, claim_messages_2.payloads,
            claim_messages_2.attributes, v_revived, v_cursor.retry_due_at, v_bytes, claim_messages_2.ordering_keys, v_expires_at
        from fastpubsub.take_due_retries(
            p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position, v_limit, p_max_bytes, v_now
        ) as r;
        v_cursor.retry_position := claim_messages_2.positions[cardinality(claim_messages_2.positions)];
        v_limit := v_limit - cardinality(claim_messages_2.positions);
        if v_expires_at is not null then
            v_limit := v_limit + (select count(*) from unnest(v_expires_at) as u where u <= v_now);
        end if;
    end if;

    if v_settings.fair_by is null and v_limit > 0 and v_bytes < p_max_bytes and v_cursor.position < last then
        -- Once, unless all that was read has expired.
        loop
            if v_settings.filter_path is null then
                v_log := fastpubsub.read_log(
                    p_topic_key, v_cursor.position, v_cursor.position + v_limit, p_max_bytes - v_bytes, v_bytes = 0
                );
                v_cursor.position := coalesce(v_log.positions[cardinality(v_log.positions)], v_cursor.position);
            else
                v_log := fastpubsub.read_matching_log(
                    p_topic_key, v_cursor.position, last, v_settings.filter_path, v_limit, p_scan_rows, p_scan_milliseconds,
                    p_max_bytes - v_bytes, v_bytes = 0
                );
                v_cursor.position := v_log.scanned;
                unreadable := claim_messages_2.unreadable || v_log.unreadable;
                unreadable_created_at := claim_messages_2.unreadable_created_at || v_log.unreadable_created_at;
            end if;
            v_found := coalesce(cardinality(v_log.positions), 0);
            v_from_log := v_from_log + v_found;
            exit when v_log.expires_at is null;
            exit when exists (select from unnest(v_log.expires_at) as u (expires_at) where (u.expires_at <= v_now) is not true);
            v_expired := v_expired || v_log.positions;
            v_found := 0;
            exit when v_cursor.position >= last;
            v_passed := fastpubsub.pass_expired(
                p_topic_key, v_cursor.position, last, v_settings.filter_path, p_scan_rows, p_scan_milliseconds, v_now
            );
            v_cursor.position := v_passed.scanned;
            v_from_log := v_from_log + cardinality(v_passed.expired);
            v_expired := v_expired || v_passed.expired;
            exit when
                v_cursor.position >= last or clock_timestamp() >= v_until
                or (v_settings.on_expired <> 'drop' and cardinality(v_expired) >= 1000);
        end loop;
        if v_from_log > v_found then
            v_expired_attempts := array_fill(0, array[cardinality(v_expired)]);
        end if;
        if v_found > 0 then
            if coalesce(claim_messages_2.ordering_keys, v_log.ordering_keys) is not null then
                ordering_keys := coalesce(
                    claim_messages_2.ordering_keys, array_fill(null::text, array[cardinality(claim_messages_2.positions)])
                ) || coalesce(v_log.ordering_keys, array_fill(null::text, array[v_found]));
            end if;
            if coalesce(v_expires_at, v_log.expires_at) is not null then
                v_expires_at := coalesce(v_expires_at, array_fill(null::timestamptz, array[cardinality(claim_messages_2.positions)]))
                || coalesce(v_log.expires_at, array_fill(null::timestamptz, array[v_found]));
            end if;
            positions := claim_messages_2.positions || v_log.positions;
            attempts := claim_messages_2.attempts || array_fill(1, array[v_found]);
            created_at := claim_messages_2.created_at || v_log.created_at;
            payloads := claim_messages_2.payloads || v_log.payloads;
            attributes := claim_messages_2.attributes || v_log.attributes;
            v_revived := v_revived || array_fill(false, array[v_found]);
        end if;
    end if;
    if v_expires_at is not null then
        select
            array_agg(m.position) filter (where not m.is_live), array_agg(m.attempts - 1) filter (where not m.is_live),
            array_agg(m.position) filter (where m.is_live), array_agg(m.attempts) filter (where m.is_live),
            array_agg(m.created_at) filter (where m.is_live), array_agg(m.payload) filter (where m.is_live),
            array_agg(m.attributes) filter (where m.is_live), array_agg(m.revived) filter (where m.is_live),
            case when count(m.ordering_key) > 0 then array_agg(m.ordering_key) filter (where m.is_live) end
        into
            v_expired_now, v_expired_now_attempts, claim_messages_2.positions, claim_messages_2.attempts, claim_messages_2.created_at,
            claim_messages_2.payloads, claim_messages_2.attributes, v_revived, claim_messages_2.ordering_keys
        from (
            select u.*, (u.expires_at <= v_now) is not true as is_live
            from unnest(
                claim_messages_2.positions, claim_messages_2.attempts, claim_messages_2.created_at, claim_messages_2.payloads,
                claim_messages_2.attributes, v_revived, claim_messages_2.ordering_keys, v_expires_at
            ) with ordinality as u (position, attempts, created_at, payload, attributes, revived, ordering_key, expires_at, ordinal)
            order by u.ordinal
        ) as m;
        positions := coalesce(claim_messages_2.positions, '{}');
        v_expired := v_expired || coalesce(v_expired_now, '{}');
        v_expired_attempts := v_expired_attempts || coalesce(v_expired_now_attempts, '{}');
    end if;
    scanned := v_cursor.position;
    -- Positions are dense: what the cursor passed and nobody gets did not match, where nothing is put aside.
    filtered := v_cursor.position - v_before - v_from_log;
    if v_settings.fair_by is not null then
        filtered := v_fair.filtered;
    end if;

    if cardinality(claim_messages_2.positions) > 0 then
        v_random := gen_random_uuid()::text;
        token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
        lease_seconds := v_settings.ack_deadline_seconds;
        expires_at := v_now + make_interval(secs => v_settings.ack_deadline_seconds);
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.first_position, r.last_position, claim_messages_2.token, v_now,
            claim_messages_2.expires_at, r.attempts, r.revived, p_consumer_ids[r.consumer]
        from fastpubsub.lease_runs(claim_messages_2.positions, claim_messages_2.attempts, v_revived, v_ends) as r;
    end if;
    if v_settings.max_in_flight is null then
        v_cursor.leased_from := null;
    else
        v_cursor.leased_from := coalesce(
            least(v_first_leased, (select min(u.position) from unnest(claim_messages_2.positions) as u (position))),
            v_cursor.leased_from
        );
    end if;
    if v_settings.rate_limit is not null and cardinality(claim_messages_2.positions) > 0 then
        v_cursor.full_at := fastpubsub.bucket_refills_at(
            v_settings.rate_limit, v_cursor.full_at, v_now, cardinality(claim_messages_2.positions)
        );
    end if;
    if cardinality(claim_messages_2.positions) = v_room then
        limited_seconds := v_seconds;
    end if;
    ttl_expired := case when v_settings.on_expired = 'drop' then cardinality(v_expired) else 0 end;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, leased_from,
        full_at,
        ttl_expired
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, v_cursor.position, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_from_log, v_cursor.purged, v_cursor.dropped, v_cursor.filtered + claim_messages_2.filtered,
        v_cursor.leased_from, v_cursor.full_at,
        case
            when claim_messages_2.ttl_expired > 0 then coalesce(v_cursor.ttl_expired, 0) + claim_messages_2.ttl_expired
            else v_cursor.ttl_expired
        end
    );
    if cardinality(v_expired) > 0 then
        dead_lettered := fastpubsub.expire_messages(v_settings, v_expired, v_expired_attempts, v_now);
    end if;
end;
$$;
