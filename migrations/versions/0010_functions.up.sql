-- functions/claim_in_order.sql
drop function fastpubsub.claim_in_order;
-- claim_messages_2 for an ordered subscription that is locked: the messages of a key go to one consumer at a time, in the order of the log.
-- The consumers are served one after the other, `shares` says how many messages each has, at most
-- p_room together. What is due comes first, then the log. Messages that have expired are
-- passed as in claim_messages_2. `is_cut`: something else is due. Where there is nothing to claim, nothing is written, and `shares` is
-- null.
-- With p_ended_turns, the caller has ended deliveries of these turns before (free_keys). What goes on of them is due now, and is claimed
-- without having waited in a table, as long as nothing else is due; `freed` says that some of it waits.
create or replace function fastpubsub.claim_in_order(
    p_settings fastpubsub.cursors,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_milliseconds integer,
    p_now timestamptz,
    p_room integer default null,
    p_first_leased bigint default null,
    p_ended_turns bigint [] default null,
    p_ended_positions bigint [] default null,
    p_ended_last_positions bigint [] default null,
    out token bigint,
    out expires_at timestamptz,
    out scanned bigint,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out unreadable bigint [],
    out unreadable_created_at timestamptz [],
    out filtered bigint,
    out ordering_keys text [],
    out shares integer [],
    out ttl_expired integer,
    out dead_lettered integer,
    out is_cut boolean,
    out last bigint,
    out freed boolean
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
    -- As in take_turns.
    c_turns constant integer := 4;
    v_topic_key bigint := p_settings.topic_key;
    v_subscription_key bigint := p_settings.subscription_key;
    -- Consumers without a key look at the log while others want to settle, who need the lock.
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_scan_milliseconds / 4000.0);
    v_cursor record;
    v_random text;
    v_left integer;
    v_is_due boolean;
    v_bytes bigint := 0;
    v_part record;
    v_positions bigint [];
    v_attempts integer [];
    v_turns bigint [];
    v_first bigint;
    v_retried integer;
    v_expired bigint [] := '{}';
    v_expired_attempts integer [] := '{}';
    v_next bigint [];
    v_next_turns bigint [];
    v_next_at integer := 0;
    v_next_count integer := 0;
    v_keys integer;
    v_due_at timestamptz;
begin
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped, c.filtered, c.leased_from, c.full_at,
        c.ttl_expired,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = v_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = v_topic_key and r.subscription_key = v_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= p_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key
    order by c.sequence desc limit 1;
    last := greatest(v_cursor.last, v_cursor.position);
    scanned := v_cursor.position;
    v_is_due := v_cursor.is_due;
    freed := false;
    if p_ended_turns is not null then
        v_part := fastpubsub.end_turns(
            v_topic_key, v_subscription_key, p_ended_turns, v_cursor.position, v_cursor.retry_due_at, p_ended_positions,
            p_ended_last_positions
        );
        v_next := v_part.next;
        v_next_turns := v_part.next_turns;
        v_next_count := coalesce(cardinality(v_next), 0);
        v_due_at := greatest(p_now, v_cursor.retry_due_at + interval '1 microsecond');
        freed := v_part.waits;
        if v_part.waits and not v_is_due then
            v_is_due := exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = v_topic_key and r.subscription_key = v_subscription_key
                    and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.due_at <= p_now
            );
        end if;
        if v_next_count > 0 and (v_is_due or p_settings.filter_path is not null or p_room is not null or v_due_at > p_now) then
            insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
            select v_topic_key, v_subscription_key, v_due_at, u.position, 0, 'put aside', u.turn
            from unnest(v_next, v_next_turns) as u (position, turn);
            v_next_count := 0;
            v_is_due := true;
            freed := true;
        end if;
    end if;
    if claim_in_order.last = v_cursor.position and not v_is_due and v_next_count = 0 then
        return;
    end if;

    filtered := 0;
    positions := '{}';
    is_cut := false;
    v_random := gen_random_uuid()::text;
    token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
    expires_at := p_now + make_interval(secs => p_settings.ack_deadline_seconds);
    for v_consumer in 1..cardinality(p_limits) loop
        v_positions := '{}';
        v_attempts := '{}';
        v_turns := '{}';
        v_retried := 0;
        loop
            v_left := p_limits[v_consumer] - cardinality(v_positions);
            exit when v_left = 0 or v_bytes >= p_max_bytes or v_next_at >= v_next_count;
            -- As take_turns would.
            v_keys := least(v_left, c_turns, v_next_count - v_next_at);
            v_part := fastpubsub.take_put_aside(
                v_topic_key, v_subscription_key, v_next[v_next_at + 1 : v_next_at + v_keys],
                v_next_turns[v_next_at + 1 : v_next_at + v_keys], v_cursor.position, greatest(v_left / v_keys, 1),
                p_max_bytes - v_bytes, p_now
            );
            exit when v_part.positions is null;
            v_next_at := v_next_at + v_keys;
            v_cursor.retry_due_at := v_due_at;
            v_cursor.retry_position := v_next[v_next_at];
            v_positions := v_positions || v_part.positions;
            v_attempts := v_attempts || array_fill(1, array[cardinality(v_part.positions)]);
            v_turns := v_turns || v_part.turns;
            v_bytes := v_bytes + v_part.size;
            v_cursor.routed := v_cursor.routed + cardinality(v_part.positions);
            created_at := claim_in_order.created_at || v_part.created_at;
            payloads := claim_in_order.payloads || v_part.payloads;
            attributes := claim_in_order.attributes || v_part.attributes;
            ordering_keys := claim_in_order.ordering_keys || v_part.ordering_keys;
        end loop;
        if v_next_at < v_next_count and (v_left > 0 or v_consumer = cardinality(p_limits)) then
            insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
            select v_topic_key, v_subscription_key, v_due_at, u.position, 0, 'put aside', u.turn
            from unnest(v_next[v_next_at + 1 :], v_next_turns[v_next_at + 1 :]) as u (position, turn);
            v_next_count := 0;
            v_is_due := true;
            freed := true;
        end if;
        loop
            v_left := least(p_limits[v_consumer], p_room - cardinality(claim_in_order.positions)) - cardinality(v_positions);
            exit when v_left = 0 or v_bytes >= p_max_bytes or not v_is_due or cardinality(v_expired) >= 1000;
            v_part := fastpubsub.take_turns(
                v_topic_key, v_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position, v_cursor.position,
                p_settings.filter_path, v_left, p_max_bytes - v_bytes, p_now
            );
            v_is_due := v_part.is_more;
            exit when v_part.retry_position is null;
            v_cursor.retry_due_at := v_part.due_at;
            v_cursor.retry_position := v_part.retry_position;
            v_positions := v_positions || v_part.positions;
            v_attempts := v_attempts || v_part.attempts;
            v_turns := v_turns || v_part.turns;
            v_bytes := v_bytes + v_part.size;
            v_cursor.routed := v_cursor.routed + v_part.routed;
            created_at := claim_in_order.created_at || v_part.created_at;
            payloads := claim_in_order.payloads || v_part.payloads;
            attributes := claim_in_order.attributes || v_part.attributes;
            ordering_keys := claim_in_order.ordering_keys || v_part.ordering_keys;
            if not v_part.are_new then
                v_retried := cardinality(v_positions);
            end if;
            v_expired := v_expired || v_part.expired;
            v_expired_attempts := v_expired_attempts || v_part.expired_attempts;
            filtered := claim_in_order.filtered + v_part.filtered;
            unreadable := claim_in_order.unreadable || v_part.unreadable;
        end loop;
        if
            v_left > 0 and v_bytes < p_max_bytes and v_cursor.position < claim_in_order.last
            and (v_consumer = 1 or clock_timestamp() < v_until)
        then
            v_first := coalesce(v_first, fastpubsub.first_position(v_topic_key, claim_in_order.last));
            v_part := fastpubsub.read_log_in_order(
                v_topic_key, v_subscription_key, v_cursor.position, claim_in_order.last, p_settings.filter_path, v_left,
                p_max_bytes - v_bytes, v_bytes = 0, v_until, p_now, v_first
            );
            created_at := claim_in_order.created_at || v_part.created_at;
            payloads := claim_in_order.payloads || v_part.payloads;
            attributes := claim_in_order.attributes || v_part.attributes;
            ordering_keys := claim_in_order.ordering_keys || v_part.ordering_keys;
            v_cursor.position := v_part.scanned;
            v_positions := v_positions || v_part.positions;
            v_attempts := v_attempts || array_fill(1, array[cardinality(v_part.positions)]);
            v_turns := v_turns || v_part.turns;
            v_bytes := v_bytes + v_part.size;
            v_cursor.routed := v_cursor.routed + cardinality(v_part.positions) + cardinality(v_part.expired);
            v_expired := v_expired || v_part.expired;
            v_expired_attempts := v_expired_attempts || array_fill(0, array[cardinality(v_part.expired)]);
            filtered := claim_in_order.filtered + v_part.filtered;
            unreadable := claim_in_order.unreadable || v_part.unreadable;
        end if;
        is_cut := v_is_due;
        if v_positions = '{}' then
            shares := claim_in_order.shares || 0;
            continue;
        end if;
        perform fastpubsub.lease_turns(
            v_topic_key, v_subscription_key, v_positions, v_attempts, v_turns, v_retried, claim_in_order.token, p_now,
            claim_in_order.expires_at, p_consumer_ids[v_consumer]
        );
        positions := claim_in_order.positions || v_positions;
        attempts := claim_in_order.attempts || v_attempts;
        shares := claim_in_order.shares || cardinality(v_positions);
    end loop;
    if claim_in_order.unreadable is not null then
        select array_agg(m.position), array_agg(m.created_at)
        into claim_in_order.unreadable, claim_in_order.unreadable_created_at
        from unnest(claim_in_order.unreadable) as u (position)
        cross join lateral (
            select m.position, m.created_at from fastpubsub.messages as m
            where m.topic_key = v_topic_key and m.position = u.position
            limit 1
        ) as m;
    end if;
    scanned := v_cursor.position;
    v_cursor.leased_from := case
        when p_settings.max_in_flight is not null
            then coalesce(
                least(p_first_leased, (select min(u.position) from unnest(claim_in_order.positions) as u (position))), v_cursor.leased_from
            )
    end;
    if p_settings.rate_limit is not null and cardinality(claim_in_order.positions) > 0 then
        v_cursor.full_at := fastpubsub.bucket_refills_at(
            p_settings.rate_limit, v_cursor.full_at, p_now, cardinality(claim_in_order.positions)
        );
    end if;
    ttl_expired := case when p_settings.on_expired = 'drop' then cardinality(v_expired) else 0 end;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, leased_from,
        full_at,
        ttl_expired
    ) values (
        v_topic_key, v_subscription_key, v_cursor.sequence + 1, v_cursor.position, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed, v_cursor.purged, v_cursor.dropped, v_cursor.filtered + claim_in_order.filtered,
        v_cursor.leased_from, v_cursor.full_at,
        case
            when claim_in_order.ttl_expired > 0 then coalesce(v_cursor.ttl_expired, 0) + claim_in_order.ttl_expired
            else v_cursor.ttl_expired
        end
    );
    if cardinality(v_expired) > 0 then
        dead_lettered := fastpubsub.expire_messages(p_settings, v_expired, v_expired_attempts, p_now);
    end if;
end;
$$;

-- functions/claim_messages_2.sql
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

-- functions/copy_outbox.sql
-- Returns rows of the outbox as they are, in the order of (transaction, ordinal), and the id of their topic, null for one that was deleted
-- since: for a relay that publishes them on another node. Rows that are gone are left out.
create or replace function fastpubsub.copy_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    out topic_id text,
    out transactions bigint [],
    out ordinals bigint [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out due_at timestamptz [],
    out delayed_keys bigint [],
    out ttl_seconds integer [],
    out expires_at timestamptz []
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
begin
    select t.id into copy_outbox.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    select
        array_agg(r.transaction_id::text::bigint order by r.transaction_id, r.ordinal),
        array_agg(r.ordinal order by r.transaction_id, r.ordinal),
        array_agg(r.payload order by r.transaction_id, r.ordinal),
        array_agg(r.attributes order by r.transaction_id, r.ordinal),
        array_agg(r.ordering_key order by r.transaction_id, r.ordinal),
        array_agg(r.deliver_at order by r.transaction_id, r.ordinal),
        array_agg(r.delayed_key order by r.transaction_id, r.ordinal),
        array_agg(r.ttl_seconds order by r.transaction_id, r.ordinal),
        array_agg(r.expires_at order by r.transaction_id, r.ordinal)
    into
        copy_outbox.transactions, copy_outbox.ordinals, copy_outbox.payloads, copy_outbox.attributes, copy_outbox.ordering_keys,
        copy_outbox.due_at, copy_outbox.delayed_keys, copy_outbox.ttl_seconds, copy_outbox.expires_at
    from unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
    cross join lateral (
        select o.* from fastpubsub.outbox as o
        where
            o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal and o.topic_key = p_topic_key
        limit 1
    ) as r;
end;
$$;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;
-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds and p_max_backlog of 0 are no limit, p_dead_letter_topic of '' no topic,
-- p_fair_by of '' nothing, and p_backoff_jitter of 0 none, as null is.
create or replace function fastpubsub.create_subscription(
    p_id text,
    p_topic_id text,
    p_filter json,
    p_ack_deadline_seconds integer,
    p_max_delivery_attempts integer,
    p_backoff_min_seconds integer,
    p_backoff_max_seconds integer,
    p_start_from text default 'latest',
    p_start_time timestamptz default null,
    p_now timestamptz default null,
    p_push json default null,
    p_ordered boolean default false,
    p_max_in_flight integer default null,
    p_rate_limit double precision default null,
    p_dead_letter_topic text default null,
    p_expire_after_seconds integer default null,
    p_on_expired text default null,
    p_on_dead_letter text default null,
    p_max_backlog integer default null,
    p_on_full text default null,
    p_fair_by text default null,
    p_backoff_jitter double precision default null,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_filter json := case when v_path is not null then p_filter end;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(p_ordered, p_on_dead_letter);
    perform fastpubsub.check_on_full(p_ordered, p_on_full, nullif(p_fair_by, ''));
    select n.* into topic_key, subscription_key, created_at
    from fastpubsub.name_subscription(p_id, p_topic_id, v_filter, p_now) as n;
    perform fastpubsub.require_dead_letter_topic(p_topic_id, p_dead_letter_topic);
    -- Waits for publishers, so that "latest" comes after every confirmed message.
    perform from fastpubsub.heads as h where h.topic_key = create_subscription.topic_key for no key update;
    perform fastpubsub.limit_backlog(create_subscription.topic_key, p_max_backlog);
    if p_start_from <> 'latest' then
        -- Trimming does not know the new cursor yet, and must not delete the messages just after it.
        perform fastpubsub.lock_job('trim_messages', true);
    end if;
    v_position := case p_start_from
        when 'earliest' then fastpubsub.position_before(create_subscription.topic_key, '-infinity')
        when 'time' then fastpubsub.position_before(create_subscription.topic_key, p_start_time)
        else fastpubsub.last_position(create_subscription.topic_key)
    end;
    insert into fastpubsub.cursors (
        topic_key, subscription_key, filter_path, ack_deadline_seconds,
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ordered, max_in_flight, rate_limit, dead_letter_topic,
        expire_after_seconds,
        on_expired, on_dead_letter, max_backlog, on_full, fair_by, backoff_jitter
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered,
        nullif(p_max_in_flight, 0), nullif(p_rate_limit, 0), nullif(p_dead_letter_topic, ''), nullif(p_expire_after_seconds, 0),
        coalesce(p_on_expired, 'drop'), coalesce(p_on_dead_letter, 'continue'), nullif(p_max_backlog, 0), coalesce(p_on_full, 'reject'),
        nullif(p_fair_by, ''), nullif(p_backoff_jitter, 0)
    );
    perform fastpubsub.begin_subscription(
        create_subscription.topic_key, create_subscription.subscription_key, v_position, v_filter, p_push, p_now
    );
end;
$$;

-- functions/draw_due_at.sql
-- When a message comes again whose wait, until p_due_at, jitter makes shorter by up to p_seconds: at one of 16 times within them. These are
-- multiples of a sixteenth of p_seconds, so what fails within so long comes again at the same times. Which one it is, the attempt decides
-- and which ten positions the message is of: who sits next to it in a lease comes with it.
create or replace function fastpubsub.draw_due_at(
    p_due_at timestamptz,
    p_seconds double precision,
    p_position bigint,
    p_attempts integer
) returns timestamptz
language sql immutable
as $$
select date_bin(
    make_interval(secs => p_seconds / 16),
    p_due_at - make_interval(secs => p_seconds / 16) * (get_byte(sha256(int8send(p_position / 10) || int4send(p_attempts)), 0) >> 4),
    timestamptz 'epoch'
);
$$;

-- functions/end_acked.sql
drop function fastpubsub.end_acked;
-- ack_messages_2 for a caller that has begun the call, and holds the cursor of an ordered subscription (p_ordered). One that passes the
-- `turns` on to claim_in_order, with their positions, does not want their keys to go on before (p_frees).
create or replace function fastpubsub.end_acked(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    p_now timestamptz,
    p_ordered boolean,
    p_frees boolean default true,
    out outcomes smallint [],
    out freed boolean,
    out turns bigint [],
    out positions bigint [],
    out last_positions bigint []
)
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_taken record;
begin
    if p_ordered then
        v_taken := fastpubsub.end_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    else
        v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    end if;
    if true = any(v_taken.revived) then
        for i in 1..cardinality(v_taken.positions) loop
            if v_taken.revived[i] then
                delete from fastpubsub.revived as v
                where
                    v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                    and v.position >= v_taken.positions[i] and v.position <= v_taken.last_positions[i];
                perform fastpubsub.forget_failures(
                    p_topic_key, p_subscription_key, v_taken.positions[i], v_taken.last_positions[i]
                );
            end if;
        end loop;
    end if;
    outcomes := v_taken.outcomes;
    turns := v_taken.turns;
    positions := v_taken.positions;
    last_positions := v_taken.last_positions;
    freed := p_ordered and p_frees
    and fastpubsub.free_keys(
        p_topic_key, p_subscription_key, v_taken.turns, coalesce(p_now, clock_timestamp()), v_taken.positions, v_taken.last_positions
    );
end;
$$;

-- functions/end_leases.sql
-- For an ack of an ordered subscription, whose cursor the caller holds: ends deliveries as take_leases does, but without a look before at
-- whether they are whole. What is left of them is cut. A few runs that come in order, each one whole lease, are one delete each, as in
-- end_whole_leases.
create or replace function fastpubsub.end_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    out positions bigint [],
    out last_positions bigint [],
    out revived boolean [],
    out turns bigint [],
    out outcomes smallint []
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
    -- As in take_leases.
    c_gap constant bigint := 64;
    c_runs constant integer := 8;
    v_runs integer := cardinality(p_positions);
    v_in_order boolean := cardinality(p_positions) <= c_runs;
    v_whole integer := 0;
    v_messages integer := 0;
    v_length integer;
    v_positions bigint [];
    v_lasts bigint [];
    v_tokens bigint [];
    v_ends integer [];
    v_count bigint;
    v_left bigint;
    v_are_apart boolean;
    v_start integer := 1;
    v_end integer;
    v_taken record;
begin
    for i in 2..least(v_runs, c_runs) loop
        v_in_order := v_in_order and p_positions[i] >= p_positions[i - 1] + coalesce(p_lengths[i - 1], 1);
    end loop;
    if v_in_order then
        for i in 1..v_runs loop
            v_length := coalesce(p_lengths[i], 1);
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = p_positions[i]
                and l.last_position = p_positions[i] + v_length - 1 and l.token = p_tokens[i]
            returning l.revived, l.turn into v_taken;
            exit when not found;
            v_whole := i;
            v_messages := v_messages + v_length;
            positions := end_leases.positions || p_positions[i];
            last_positions := end_leases.last_positions || p_positions[i] + v_length - 1;
            revived := end_leases.revived || v_taken.revived;
            turns := end_leases.turns || v_taken.turn;
        end loop;
        outcomes := array_fill(1::smallint, array[v_messages]);
        if v_whole = v_runs then
            return;
        elsif v_whole > 0 then
            v_taken := fastpubsub.end_leases(
                p_topic_key, p_subscription_key, p_positions[v_whole + 1 :], p_tokens[v_whole + 1 :], p_created_at[v_whole + 1 :],
                p_lengths[v_whole + 1 :]
            );
            positions := end_leases.positions || v_taken.positions;
            last_positions := end_leases.last_positions || v_taken.last_positions;
            revived := end_leases.revived || v_taken.revived;
            turns := end_leases.turns || v_taken.turns;
            outcomes := end_leases.outcomes || v_taken.outcomes;
            return;
        end if;
    end if;
    select
        array_agg(r.position), array_agg(r.last_position), array_agg(r.token),
        array_agg(r.place) filter (where r.distance > c_gap or r.distance is null), sum(r.last_position - r.position + 1),
        bool_and(r.token is not null and coalesce(r.distance > 0, true))
    into v_positions, v_lasts, v_tokens, v_ends, v_count, v_are_apart
    from (
        select
            r.position, r.last_position, r.token, row_number() over (order by r.position) as place,
            lead(r.position) over (order by r.position) - r.last_position as distance
        from (
            select r.position, r.position + coalesce(r.length, 1) - 1 as last_position, r.token
            from unnest(p_positions, p_lengths, p_tokens) as r (position, length, token)
        ) as r
        order by r.position
    ) as r;
    if v_are_apart is not true then
        v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
        positions := v_taken.positions;
        last_positions := v_taken.last_positions;
        revived := v_taken.revived;
        turns := v_taken.turns;
        outcomes := v_taken.outcomes;
        return;
    end if;
    v_left := v_count;
    foreach v_end in array v_ends loop
        with ended as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_lasts[v_end]
                and l.last_position <= v_lasts[width_bucket(l.position, (select v_positions))]
                and l.token = v_tokens[width_bucket(l.position, (select v_positions))]
            returning l.position, l.last_position, l.revived, l.turn
        )
        select
            array_agg(e.position) as positions, array_agg(e.last_position) as last_positions, array_agg(e.revived) as revived,
            array_agg(e.turn) as turns, sum(e.last_position - e.position + 1) as messages
        into v_taken
        from ended as e;
        positions := end_leases.positions || v_taken.positions;
        last_positions := end_leases.last_positions || v_taken.last_positions;
        revived := end_leases.revived || v_taken.revived;
        turns := end_leases.turns || v_taken.turns;
        v_left := v_left - coalesce(v_taken.messages, 0);
        v_start := v_end + 1;
    end loop;
    if v_left = 0 then
        outcomes := array_fill(1::smallint, array[v_count::integer]);
        return;
    end if;
    v_taken := fastpubsub.cut_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    select
        array_agg(
            case
                when i.position <= end_leases.last_positions[width_bucket(i.position, end_leases.positions)] then 1
                else v_taken.outcomes[i.ordinal]
            end::smallint order by i.ordinal
        )
    into end_leases.outcomes
    from (
        select r.position + s as position, row_number() over (order by r.ordinal, s) as ordinal
        from unnest(p_positions, p_lengths) with ordinality as r (position, length, ordinal)
        cross join lateral generate_series(0, coalesce(r.length, 1) - 1) as s
    ) as i;
    positions := end_leases.positions || v_taken.positions;
    last_positions := end_leases.last_positions || v_taken.positions;
    revived := end_leases.revived || v_taken.revived;
    turns := end_leases.turns || v_taken.turns;
end;
$$;

-- functions/end_turns.sql
-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription, as free_keys, which is this and its
-- insert: a turn of which nothing is leased any more goes on. Its first parked message waits, or the first one that was put aside is in
-- `next`, or the key is no longer busy. p_cursor and p_retry_due_at are those of the newest claim. A turn of 0 stands for all messages from
-- p_positions to p_last_positions, of which each is a turn. One of -1 does, too, but behind none of them something was put aside, so they
-- are not looked at. `next` is in the order of the log, with `next_turns`. `waits` says that a parked message may be due.
create or replace function fastpubsub.end_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_cursor bigint,
    p_retry_due_at timestamptz,
    p_positions bigint [] default null,
    p_last_positions bigint [] default null,
    out next bigint [],
    out next_turns bigint [],
    out waits boolean
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_message fastpubsub.parked;
    v_parked bigint [];
    v_parked_turns bigint [];
    v_idle bigint [];
begin
    waits := false;
    -- The usual case of many keys.
    if 0 > all(p_turns) then
        return;
    end if;
    if 0 < any(p_turns) then
        select
            array_agg(t.turn) filter (where t.parked is not null),
            array_agg(t.parked) filter (where t.parked is not null),
            array_agg(t.turn) filter (where t.parked is null and t.next is not null),
            array_agg(t.next) filter (where t.parked is null and t.next is not null),
            array_agg(t.turn) filter (where t.parked is null and t.next is null)
        into v_parked_turns, v_parked, end_turns.next_turns, end_turns.next, v_idle
        from (
            select t.turn, p.position as parked, n.position as next
            from (select distinct u.turn from unnest(p_turns) as u (turn) where u.turn > 0) as t
            left join lateral (
                select p.position from fastpubsub.parked as p
                where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = t.turn
                order by p.position limit 1
            ) as p on true
            left join lateral (
                select k.position
                from (
                    select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
                    where p.position is null and m.topic_key = p_topic_key and m.position = t.turn
                    limit 1
                ) as m
                cross join lateral (
                    select k.position from fastpubsub.message_keys as k
                    where
                        k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > t.turn
                        and k.position <= p_cursor
                    order by k.position limit 1
                ) as k
            ) as n on true
            where
                (
                    select l.turn from fastpubsub.leases as l
                    where
                        l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= t.turn
                        and l.turn <= t.turn and l.turn <> l.last_position
                    -- With sorting off, only the index by turn has this order.
                    order by l.turn
                    limit 1
                ) is null
                and (
                    select l.turn from fastpubsub.leases as l
                    where
                        l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                        and l.position > t.turn - 100 and l.position <= t.turn and l.last_position = t.turn and l.turn = t.turn
                    limit 1
                ) is null
        ) as t;
    end if;
    if 0 = any(p_turns) then
        select end_turns.next || array_agg(k.position), end_turns.next_turns || array_agg(m.position)
        into end_turns.next, end_turns.next_turns
        from unnest(p_turns, p_positions, p_last_positions) as u (turn, position, last_position)
        cross join lateral (
            select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position >= u.position and m.position <= u.last_position
            order by m.position limit 100
        ) as m
        cross join lateral (
            select k.position from fastpubsub.message_keys as k
            where
                k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > m.position
                and k.position <= p_cursor
            order by k.position limit 1
        ) as k
        where u.turn = 0;
    end if;
    -- Joins with the arrays would be planned by wrong statistics.
    for i in 1..coalesce(cardinality(v_parked), 0) loop
        delete from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_parked_turns[i]
            and p.position = v_parked[i]
        returning p.* into v_message;
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        values (
            p_topic_key, p_subscription_key, greatest(v_message.due_at, p_retry_due_at + interval '1 microsecond'),
            v_message.position, v_message.attempts, v_message.reason, v_message.turn
        );
        waits := true;
    end loop;
    for i in 1..coalesce(cardinality(v_idle), 0) loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_idle[i];
    end loop;
    if cardinality(end_turns.next) > 1 then
        select array_agg(u.position order by u.position), array_agg(u.turn order by u.position)
        into end_turns.next, end_turns.next_turns
        from unnest(end_turns.next, end_turns.next_turns) as u (position, turn);
    end if;
end;
$$;

-- functions/finish_outbox.sql
-- Deletes rows of the outbox that were published on another node, or whose topic was deleted. Those with one of p_reasons do not match the
-- schema of the topic: they are kept apart, and counted in `refused`.
create or replace function fastpubsub.finish_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_reasons text [] default null,
    p_now timestamptz default null,
    out deleted integer,
    out refused integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    refused := 0;
    if p_reasons is not null then
        refused := fastpubsub.refuse_messages(
            p_topic_key, p_transactions, p_ordinals, p_reasons, coalesce(p_now, clock_timestamp())
        );
    end if;
    delete from fastpubsub.outbox as o
    using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
    cross join lateral (
        select p.ctid from fastpubsub.outbox as p
        where
            p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
            and p.topic_key = p_topic_key
        limit 1
    ) as p
    where o.ctid = p.ctid;
    get diagnostics deleted = row_count;
end;
$$;

-- functions/first_position.sql
-- Returns the lowest kept position of a topic whose newest is p_last. Positions are dense and trimmed from the front, so a binary search of
-- point lookups finds it without walking over the rows that trimming left for vacuum.
create or replace function fastpubsub.first_position(p_topic_key bigint, p_last bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_low bigint := 1;
    v_high bigint := p_last;
    v_middle bigint;
begin
    -- As long as nothing was trimmed.
    if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = 1) then
        return 1;
    end if;
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_middle) then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low;
end;
$$;

-- functions/forget_outbox_keys.sql
-- Deletes what publish_outbox has kept of rows of the outbox that are gone. A crash may undo it.
create or replace function fastpubsub.forget_outbox_keys(p_topic_key bigint, p_keys text []) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.idempotency_keys as k
    using unnest(p_keys) as u (key)
    cross join lateral (
        select o.ctid from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and (o.client, o.key) >= ('*outbox', u.key) and (o.client, o.key) <= ('*outbox', u.key)
        order by o.client, o.key
        limit 1
    ) as o
    where k.topic_key = p_topic_key and k.ctid = o.ctid;
end;
$$;

-- functions/fork_subscription.sql
-- Creates a subscription like another of the same topic, before the oldest message that the other has not settled. p_settings has those
-- that differ, named as columns of `cursors`, and p_filter counts with p_change_filter. A pause and push stay with the other.
create or replace function fastpubsub.fork_subscription(
    p_id text,
    p_topic_id text,
    p_fork_of text,
    p_settings jsonb,
    p_change_filter boolean,
    p_filter json default null,
    p_push json default null,
    p_now timestamptz default null,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_original record;
    v_cursor fastpubsub.cursors;
    v_filter json := p_filter;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    select n.* into topic_key, subscription_key, created_at from fastpubsub.name_subscription(p_id, p_topic_id, null, p_now) as n;
    v_original := fastpubsub.resolve_subscription(p_fork_of);
    if v_original.topic_key <> topic_key then
        raise exception using
            errcode = 'FP422', message = format('fork_of: subscription "%s" is not of the topic "%s"', p_fork_of, p_topic_id);
    end if;
    perform fastpubsub.limit_backlog(topic_key, (p_settings ->> 'max_backlog')::integer);
    -- Trimming does not know the new cursor yet, and as long as it waits, the other needs no lock.
    perform fastpubsub.lock_job('trim_messages', true);
    v_position := fastpubsub.unsettled_position(v_original.topic_key, v_original.subscription_key);
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = v_original.topic_key and c.subscription_key = v_original.subscription_key;
    -- Who deletes the other between two statements is no reason for a fork without its filter.
    if found and not p_change_filter then
        select s.filter into v_filter from fastpubsub.subscriptions as s where s.subscription_key = v_original.subscription_key;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_fork_of);
    end if;
    v_cursor := jsonb_populate_record(v_cursor, p_settings);
    v_cursor.subscription_key := subscription_key;
    v_cursor.filter_path := fastpubsub.compile_filter(v_filter);
    v_cursor.paused_at := null;
    v_cursor.is_pushed := null;
    v_cursor.max_in_flight := nullif(v_cursor.max_in_flight, 0);
    v_cursor.rate_limit := nullif(v_cursor.rate_limit, 0);
    v_cursor.backoff_jitter := nullif(v_cursor.backoff_jitter, 0);
    v_cursor.dead_letter_topic := nullif(v_cursor.dead_letter_topic, '');
    perform fastpubsub.require_dead_letter_topic(p_topic_id, v_cursor.dead_letter_topic);
    v_cursor.max_backlog := nullif(v_cursor.max_backlog, 0);
    v_cursor.fair_by := nullif(v_cursor.fair_by, '');
    perform fastpubsub.check_on_full(v_cursor.ordered, v_cursor.on_full, v_cursor.fair_by);
    v_cursor.expire_after_seconds := nullif(v_cursor.expire_after_seconds, 0);
    if v_cursor.backoff_max_seconds < v_cursor.backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(v_cursor.ordered, v_cursor.on_dead_letter);
    if v_cursor.filter_path is null then
        v_filter := null;
    end if;
    update fastpubsub.subscriptions as s set filter = v_filter where s.subscription_key = fork_subscription.subscription_key;
    insert into fastpubsub.cursors values ((v_cursor).*);
    perform fastpubsub.begin_subscription(topic_key, subscription_key, v_position, v_filter, p_push, p_now);
end;
$$;

-- functions/free_keys.sql
-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription. A turn of which nothing is leased any
-- more goes on: its first parked message waits, or the first one that was put aside is due, or the key is no longer busy (end_turns).
-- Returns whether there is something new to claim.
create or replace function fastpubsub.free_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_now timestamptz,
    p_positions bigint [] default null,
    p_last_positions bigint [] default null
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_ended record;
begin
    if 0 > all(p_turns) then
        return false;
    end if;
    select c.position, c.retry_due_at into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_ended := fastpubsub.end_turns(
        p_topic_key, p_subscription_key, p_turns, v_cursor.position, v_cursor.retry_due_at, p_positions, p_last_positions
    );
    if v_ended.next is not null then
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        select
            p_topic_key, p_subscription_key, greatest(p_now, v_cursor.retry_due_at + interval '1 microsecond'), u.position, 0,
            'put aside', u.turn
        from unnest(v_ended.next, v_ended.next_turns) as u (position, turn);
    end if;
    return v_ended.waits or v_ended.next is not null;
end;
$$;

-- functions/lease_turns.sql
-- For claim_in_order: leases these messages to a consumer, neighbors of one turn together. The first p_retried may be copies of dead
-- letters.
create or replace function fastpubsub.lease_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_attempts integer [],
    p_turns bigint [],
    p_retried integer,
    p_token bigint,
    p_now timestamptz,
    p_expires_at timestamptz,
    p_consumer_id text
) returns void
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
    v_count integer := cardinality(p_positions);
    v_firsts bigint [];
    v_lasts bigint [];
    v_run_turns bigint [];
    v_runs integer := 0;
begin
    -- Of a single turn, or of messages that are alone with their key: these come in the order of the log.
    if
        p_retried = 0 and p_positions[v_count] - p_positions[1] = v_count - 1 and p_turns[1] = all(p_turns) and 1 = all(p_attempts)
    then
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, f, least(f + 99, p_positions[v_count]), p_token, p_now, p_expires_at, 1, false, p_consumer_id,
            p_turns[1]
        from generate_series(p_positions[1], p_positions[v_count], 100) as f;
        return;
    end if;
    -- None has a neighbor, as where several keys alternate.
    if
        p_retried = 0
        and not exists (
            select from unnest(p_positions, p_positions[2:]) as u (position, next_position) where u.next_position = u.position + 1
        )
    then
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, u.position, u.position, p_token, p_now, p_expires_at, u.attempts, false, p_consumer_id, u.turn
        from unnest(p_positions, p_attempts, p_turns) as u (position, attempts, turn);
        return;
    end if;
    if p_retried = 0 and 1 = all(p_attempts) then
        for i in 1..v_count loop
            if p_positions[i] = v_lasts[v_runs] + 1 and p_turns[i] = v_run_turns[v_runs] and p_positions[i] - v_firsts[v_runs] < 100 then
                v_lasts[v_runs] := p_positions[i];
            else
                v_firsts := v_firsts || p_positions[i];
                v_lasts := v_lasts || p_positions[i];
                v_run_turns := v_run_turns || p_turns[i];
                v_runs := v_runs + 1;
            end if;
        end loop;
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, p_token, p_now, p_expires_at, 1, false, p_consumer_id, r.turn
        from unnest(v_firsts, v_lasts, v_run_turns) as r (position, last_position, turn);
        return;
    end if;
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
    )
    select
        p_topic_key, p_subscription_key, min(r.position), max(r.position), p_token, p_now, p_expires_at,
        r.attempts, r.revived, p_consumer_id, r.turn
    from (
        select
            m.*, m.position - row_number() over (partition by m.turn, m.attempts, m.revived order by m.position) as island
        from (
            select
                u.position, u.attempts, u.turn,
                u.ordinal <= p_retried and exists (
                    select from fastpubsub.revived as v
                    where
                        v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
                    -- Or it would read all copies, to look each one up.
                    offset 0
                ) as revived
            from unnest(p_positions, p_attempts, p_turns) with ordinality as u (position, attempts, turn, ordinal)
        ) as m
    ) as r
    group by r.turn, r.attempts, r.revived, r.island, r.position / 100;
end;
$$;

-- functions/list_keys.sql
-- Returns the keys and ids of the topics that a caller may see, and of those with a subscription that it may see, each with these
-- subscriptions; a topic without has one row with nulls. p_topic_ids and p_subscription_ids are what it may see, null for all.
create or replace function fastpubsub.list_keys(p_topic_ids text [], p_subscription_ids text [])
returns table (topic_key bigint, topic_id text, is_visible boolean, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    select t.topic_key, t.id, p_topic_ids is null or t.id = any(p_topic_ids), s.subscription_key, s.id
    from fastpubsub.topics as t
    left join fastpubsub.subscriptions as s
        on t.topic_key = s.topic_key and (p_subscription_ids is null or s.id = any(p_subscription_ids))
    where p_topic_ids is null or t.id = any(p_topic_ids) or s.id is not null;
end;
$$;

-- functions/list_rhythms.sql
drop function fastpubsub.list_rhythms;
-- Returns of topics that were silent for p_seconds, but published within the last day, and of the named subscriptions that were silent for
-- p_consumer_seconds, in how many minutes of that day something was published, or delivered; the time from the first to the last of them,
-- and the longest pause in it; and since when nothing was. At most p_limit topics, those that fell silent last.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer, and p_created_at when the newest message of each of them was
-- published, so that nothing is read but the history.
create or replace function fastpubsub.list_rhythms(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_seconds integer default 600,
    p_limit integer default 100,
    p_consumer_seconds integer default 300,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null,
    p_created_at timestamptz [] default null
) returns table (
    topic_id text,
    subscription_id text,
    minutes bigint,
    lasted_seconds bigint,
    longest_pause_seconds bigint,
    silent_since timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from bigint := floor(extract(epoch from v_now))::bigint - 86400;
    v_topic record;
    v_created_at timestamptz;
    v_ids text [];
    v_keys bigint [];
    v_times timestamptz [];
begin
    if p_created_at is not null then
        select array_agg(t.id), array_agg(t.topic_key), array_agg(u.created_at) into v_ids, v_keys, v_times
        from unnest(p_topic_keys, p_created_at) as u (topic_key, created_at)
        inner join fastpubsub.topics as t on u.topic_key = t.topic_key
        where
            (p_topic_ids is null or t.id = any(p_topic_ids))
            and u.created_at < v_now - make_interval(secs => p_seconds) and u.created_at > v_now - interval '1 day';
    elsif p_by_topic then
        for v_topic in
            select t.id, t.topic_key from fastpubsub.topics as t
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
        loop
            select m.created_at into v_created_at from fastpubsub.messages as m
            where m.topic_key = v_topic.topic_key
            order by m.position desc limit 1;
            if v_created_at < v_now - make_interval(secs => p_seconds) and v_created_at > v_now - interval '1 day' then
                v_ids := v_ids || v_topic.id;
                v_keys := v_keys || v_topic.topic_key;
                v_times := v_times || v_created_at;
            end if;
        end loop;
    else
        select array_agg(n.id), array_agg(n.topic_key), array_agg(n.created_at) into v_ids, v_keys, v_times
        from (
            select t.id, t.topic_key, m.created_at
            from fastpubsub.topics as t
            cross join lateral (
                select m.created_at from fastpubsub.messages as m where m.topic_key = t.topic_key order by m.position desc limit 1
            ) as m
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and m.created_at < v_now - make_interval(secs => p_seconds) and m.created_at > v_now - interval '1 day'
            order by m.created_at desc
            limit p_limit
        ) as n;
    end if;
    return query
    with
    quiet as (
        select m.id, m.topic_key, m.created_at from unnest(v_ids, v_keys, v_times) as m (id, topic_key, created_at)
        order by m.created_at desc
        limit p_limit
    ),
    objects as (
        select t.id as topic_id, null::text as subscription_id, t.topic_key, 0::bigint as subscription_key, t.created_at as silent_since
        from quiet as t
        union all
        select t.id, s.id, s.topic_key, s.subscription_key, null
        from unnest(p_subscription_ids) as i (id)
        inner join fastpubsub.subscriptions as s on s.id = i.id
        inner join fastpubsub.topics as t on t.topic_key = s.topic_key
        where not exists (
            select from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at)
                >= (s.subscription_key, 5, floor(extract(epoch from v_now))::bigint - p_consumer_seconds)
                and (h.subscription_key, h.interval_seconds) <= (s.subscription_key, 5) and h.delivered > 0
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        )
    )
    select
        o.topic_id, o.subscription_id, r.minutes, r.lasted_seconds, r.longest_pause_seconds, coalesce(o.silent_since, to_timestamp(r.ended))
    from objects as o
    cross join lateral (
        select
            count(*) as minutes, (max(a.minute) - min(a.minute)) * 60 as lasted_seconds,
            coalesce(max(a.pause) * 60, 0) as longest_pause_seconds, max(a.ended) as ended
        from (
            select m.minute, m.minute - lag(m.minute) over (order by m.minute) as pause, m.ended
            from (
                select h.at / 60 as minute, max(h.at + h.interval_seconds) as ended
                from (
                    select h.* from fastpubsub.history as h
                    where
                        h.topic_key = o.topic_key
                        and (h.subscription_key, h.interval_seconds, h.at) >= (o.subscription_key, 5, v_from)
                        and (h.subscription_key, h.interval_seconds) <= (o.subscription_key, 60)
                    order by h.subscription_key, h.interval_seconds, h.at
                    offset 0
                ) as h
                where h.at >= v_from and case when o.subscription_key = 0 then h.published else h.delivered end > 0
                group by h.at / 60
            ) as m
        ) as a
    ) as r
    where r.minutes > 0;
end;
$$;

-- functions/list_subscriptions_4.sql
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter;
-- p_by_topic looks for them in one topic after the other, as topics on several nodes need it; without, in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_subscriptions_4(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_topic_id text default null,
    p_part text default null,
    p_after text default null,
    p_has_dead_letters boolean default false,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
)
returns table (
    id text,
    topic_id text,
    filter json,
    ack_deadline_seconds integer,
    max_delivery_attempts integer,
    backoff_min_seconds integer,
    backoff_max_seconds integer,
    created_at timestamptz,
    paused_at timestamptz,
    push json,
    ordered boolean,
    max_in_flight integer,
    rate_limit double precision,
    dead_letter_topic text,
    expire_after_seconds integer,
    expires_at timestamptz,
    on_expired text,
    on_dead_letter text,
    max_backlog integer,
    on_full text,
    fair_by text,
    backoff_jitter double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_topic_keys bigint [];
    v_keys bigint [];
    v_found bigint [] := '{}';
    v_one record;
    v_names record;
begin
    select array_agg(n.topic_key), array_agg(n.subscription_key) into v_topic_keys, v_keys
    from (
        select s.topic_key, s.subscription_key
        from fastpubsub.subscriptions as s
        inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        where
            (p_ids is null or s.id = any(p_ids)) and (p_topic_id is null or t.id = p_topic_id)
            and (p_part is null or strpos(lower(s.id), lower(p_part)) > 0)
            and (p_after is null or s.id collate "C" > p_after)
            and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
        order by s.id collate "C"
        offset case when p_has_dead_letters then 0 else p_offset end
        limit case when not p_has_dead_letters then p_limit end
    ) as n;
    if p_has_dead_letters and p_by_topic then
        for v_one in select n.* from unnest(v_topic_keys, v_keys) as n (topic_key, subscription_key) loop
            exit when cardinality(v_found) >= p_offset + p_limit;
            perform 1 from fastpubsub.dead_letters as d
            where d.topic_key = v_one.topic_key and d.subscription_key = v_one.subscription_key
            limit 1;
            if found then
                v_found := v_found || v_one.subscription_key;
            end if;
        end loop;
        v_keys := array(select n.key from unnest(v_found) with ordinality as n (key, place) where n.place > p_offset order by n.place);
    elsif p_has_dead_letters then
        select array_agg(n.subscription_key) into v_keys
        from (
            select n.subscription_key from unnest(v_topic_keys, v_keys) with ordinality as n (topic_key, subscription_key, place)
            where exists (
                select from fastpubsub.dead_letters as d
                where d.topic_key = n.topic_key and d.subscription_key = n.subscription_key
                -- Or it would read all dead letters, to join them.
                offset 0
            )
            order by n.place
            offset p_offset
            limit p_limit
        ) as n;
    end if;
    select
        array_agg(s.topic_key) as topic_keys, array_agg(s.subscription_key) as subscription_keys, array_agg(s.id) as ids,
        array_agg(t.id) as topic_ids, array_agg(s.filter) as filters, array_agg(s.created_at) as times,
        array_agg(e.settings) as pushes, array_agg(u.used_at) as used_at
    into v_names
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    left join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    left join fastpubsub.subscription_uses as u on s.topic_key = u.topic_key and s.subscription_key = u.subscription_key
    where s.subscription_key = any(v_keys);
    -- Or where topics are on several nodes, all of them were asked.
    if v_names.ids is null then
        return;
    end if;
    return query
    select
        n.id, n.topic_id, n.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, n.created_at, c.paused_at, n.push, c.ordered, c.max_in_flight,
        c.rate_limit, c.dead_letter_topic, c.expire_after_seconds,
        case
            when c.expire_after_seconds is not null and c.paused_at is null and c.is_pushed is not true
                then fastpubsub.expires_at(n.used_at, c.expire_after_seconds)
        end,
        c.on_expired, c.on_dead_letter, c.max_backlog, c.on_full, c.fair_by, c.backoff_jitter
    from
        unnest(
            v_names.topic_keys, v_names.subscription_keys, v_names.ids, v_names.topic_ids, v_names.filters, v_names.times,
            v_names.pushes, v_names.used_at
        ) as n (topic_key, subscription_key, id, topic_id, filter, created_at, push, used_at)
    inner join fastpubsub.cursors as c on n.topic_key = c.topic_key and n.subscription_key = c.subscription_key
    -- Where topics are on several nodes, only those of these topics are asked.
    where c.topic_key = any(v_names.topic_keys)
    order by n.id collate "C";
end;
$$;

-- functions/look_at_topics.sql
-- Returns of several topics on the node of p_topic_key, which is one of them, the position of the newest message and when it was
-- published, and what loads_of_topic says of each subscription that has something to do; nulls where none has.
create or replace function fastpubsub.look_at_topics(p_topic_key bigint, p_topic_keys bigint [], p_retention_seconds bigint)
returns table (
    topic_key bigint,
    last_position bigint,
    last_created_at timestamptz,
    subscription_key bigint,
    is_filtered boolean,
    behind bigint,
    leased bigint,
    waiting bigint,
    dead bigint,
    next_created_at timestamptz,
    leased_created_at timestamptz,
    waiting_created_at timestamptz,
    died_at timestamptz,
    retention_seconds bigint,
    paused_at timestamptz,
    first_expires_at timestamptz,
    max_in_flight integer,
    at_rate_limit double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_last record;
begin
    foreach v_topic_key in array p_topic_keys loop
        select m.position, m.created_at into v_last from fastpubsub.messages as m
        where m.topic_key = v_topic_key
        order by m.position desc limit 1;
        return query
        select v_topic_key, coalesce(v_last.position, 0), v_last.created_at, l.*
        from (values (true)) as o (is_there)
        left join fastpubsub.loads_of_topic(v_topic_key, p_retention_seconds) as l on o.is_there;
    end loop;
end;
$$;

-- functions/publish_outbox.sql
-- Publishes rows of the outbox of another node, as copy_outbox returns them, each once: p_keys names them, and stays until
-- forget_outbox_keys, for thirty days at least. Whoever repeats the call, because he does not know whether it was done, stores nothing
-- twice. The payloads were checked by p_schema_version of the schema, 0 for none: FP428 when it is not the current one. Returns how many
-- are in the log now that were not before, null for a topic that was deleted; those that are to come later are put aside, and not counted.
create or replace function fastpubsub.publish_outbox(
    p_topic_key bigint,
    p_keys text [],
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_due_at timestamptz [],
    p_delayed_keys bigint [],
    p_ttl_seconds integer [],
    p_expires_at timestamptz [],
    p_schema_version bigint default 0,
    p_now timestamptz default null
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
declare
    v_schema_version bigint;
    v_now timestamptz;
    v_new integer [];
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        return null;
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_new := array(
        select u.place::integer from unnest(p_keys) with ordinality as u (key, place)
        left join lateral (
            select true as is_known from fastpubsub.idempotency_keys as k
            where
                k.topic_key = p_topic_key
                and (k.client, k.key) >= ('*outbox', u.key) and (k.client, k.key) <= ('*outbox', u.key)
            order by k.client, k.key
            limit 1
        ) as k on true
        where k.is_known is null
    );
    if cardinality(v_new) = 0 then
        return 0;
    end if;
    insert into fastpubsub.idempotency_keys (topic_key, client, key, body_hash, first_position, message_count, created_at)
    select p_topic_key, '*outbox', p_keys[u.place], '', 0, 0, v_now + interval '30 days' from unnest(v_new) as u (place);
    if cardinality(v_new) < cardinality(p_keys) then
        p_payloads := array(select p_payloads[u.place] from unnest(v_new) as u (place));
        p_attributes := array(select p_attributes[u.place] from unnest(v_new) as u (place));
        p_ordering_keys := array(select p_ordering_keys[u.place] from unnest(v_new) as u (place));
        p_due_at := array(select p_due_at[u.place] from unnest(v_new) as u (place));
        p_delayed_keys := array(select p_delayed_keys[u.place] from unnest(v_new) as u (place));
        p_ttl_seconds := array(select p_ttl_seconds[u.place] from unnest(v_new) as u (place));
        p_expires_at := array(select p_expires_at[u.place] from unnest(v_new) as u (place));
    end if;
    if array_remove(p_ordering_keys, null) = '{}' then
        p_ordering_keys := null;
    end if;
    if array_remove(p_due_at, null) <> '{}' then
        perform fastpubsub.publish_and_delay(
            p_topic_key, p_payloads, p_attributes, p_ordering_keys, p_due_at, p_delayed_keys, v_now, p_ttl_seconds, p_expires_at
        );
    else
        perform fastpubsub.publish_messages(
            p_topic_key, p_payloads, p_attributes, null, v_now, p_ordering_keys, p_ttl_seconds, p_expires_at
        );
    end if;
    return cardinality(array_positions(p_due_at, null));
end;
$$;

-- functions/read_log_in_order.sql
-- For a claim of an ordered subscription: reads the log after p_after, up to p_limit messages and p_max_bytes (with p_at_least_one, the
-- first one whatever its size), and until p_until. The messages of a key that is busy are put aside. `turns` are those of the keys, which
-- are busy from now on: -1 for a message that is all of its key, or has none, and 0 if something was put aside behind it already.
-- `scanned` is how far the cursor can move, past those in `expired`, which had nothing of their key before them. p_first is the first kept
-- position: before it, messages may have been trimmed, and be left for vacuum.
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
    p_first bigint default null,
    out positions bigint [],
    out turns bigint [],
    out size bigint,
    out scanned bigint,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
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
    v_first bigint := coalesce(p_first, fastpubsub.first_position(p_topic_key, p_last));
    v_step bigint := p_limit;
    v_to bigint;
    v_left integer;
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_is_read boolean := false;
    v_has_all boolean := false;
    v_belongings timestamptz [];
    v_busy bigint;
    v_place integer;
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
        v_left := p_limit - cardinality(read_log_in_order.positions);
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
        else
            v_read := fastpubsub.take_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions, v_left,
                p_max_bytes - read_log_in_order.size, p_now
            );
            v_is_read := v_read.scanned is not null;
        end if;
        if not v_is_read then
            v_read := fastpubsub.judge_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions, v_left,
                p_max_bytes - read_log_in_order.size, p_now, p_at_least_one and read_log_in_order.size = 0, p_path, v_matching
            );
        end if;
        if v_read.busy is not null then
            -- A join with the array would be planned by wrong statistics.
            foreach v_busy in array v_read.busy loop
                perform fastpubsub.follow_busy(p_topic_key, p_subscription_key, v_busy);
                v_place := array_position(read_log_in_order.positions, v_busy);
                if read_log_in_order.turns[v_place] = -1 then
                    turns[v_place] := 0;
                end if;
            end loop;
        end if;
        if v_read.busy is not null or 0 < any(v_read.turns) then
            insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
            select p_topic_key, p_subscription_key, u.position
            from (
                select u.position from unnest(v_read.tails) as u (position)
                union all
                select distinct u.position from unnest(v_read.turns) as u (position) where u.position > 0
            ) as u;
        end if;
        v_belongings := null;
        if v_is_read then
            v_belongings := v_read.created_at;
        end if;
        if v_belongings is not null and (v_has_all or cardinality(read_log_in_order.positions) = 0) then
            v_has_all := true;
            created_at := read_log_in_order.created_at || v_belongings;
            payloads := read_log_in_order.payloads || v_read.payloads;
            attributes := read_log_in_order.attributes || v_read.attributes;
            ordering_keys := read_log_in_order.ordering_keys || v_read.ordering_keys;
        elsif v_read.positions is not null then
            v_has_all := false;
        end if;
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
        -- Where most could be taken, those that are missing are close.
        if 2 * cardinality(v_read.positions) >= v_step then
            v_step := p_limit - cardinality(read_log_in_order.positions);
        else
            v_step := least(greatest(v_step, 64) * 2, c_step);
        end if;
    end loop;
    if not v_has_all then
        v_read := fastpubsub.read_claimed(p_topic_key, p_subscription_key, read_log_in_order.positions);
        created_at := v_read.created_at;
        payloads := v_read.payloads;
        attributes := v_read.attributes;
        ordering_keys := v_read.ordering_keys;
    end if;
end;
$$;

-- functions/requeue_messages.sql
-- Requeues deliveries that ended without an ack, in runs from p_positions to p_last_positions; the caller holds the cursor and has deleted
-- the leases. A message with attempts left waits for p_delay_seconds (null: the backoff); others, and those with p_reasons, die. What has
-- ended them is p_cause, and more of it p_causes. Returns how many died. In an ordered subscription, with p_turns, a message that waits
-- takes those with it that are leased after it in its turn: they come again after it, and their attempt does not count.
-- So does one that dies and holds its key: it is parked without an end. What has failed is written down, with the
-- consumers that had it.
create or replace function fastpubsub.requeue_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_last_positions bigint [],
    p_attempts integer [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_cause text,
    p_now timestamptz,
    p_causes text [] default null,
    p_turns bigint [] default null,
    p_consumer_ids text [] default null
) returns integer
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_died integer;
    v_replaced integer;
    v_dead bigint [];
    v_position bigint;
    v_positions bigint [];
    v_attempts integer [];
    v_reasons text [];
    v_causes text [];
    v_turns bigint [];
    v_due_at timestamptz [];
    v_dead_turns bigint [];
    v_consumer_ids text [];
begin
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select
        array_agg(p), array_agg(r.attempts), array_agg(r.reason), array_agg(': ' || r.cause),
        array_agg(r.turn), array_agg(r.consumer_id),
        array_agg(
            greatest(
                case
                    when r.delay_seconds is null and v_settings.backoff_jitter is not null and w.seconds > 0 then fastpubsub.draw_due_at(
                        p_now + make_interval(secs => w.seconds), w.seconds * v_settings.backoff_jitter,
                        case when r.turn > 0 then r.turn else p end, r.attempts
                    )
                    else p_now + make_interval(secs => coalesce(r.delay_seconds, w.seconds))
                end,
                v_cursor.retry_due_at + interval '1 microsecond'
            )
        )
    into v_positions, v_attempts, v_reasons, v_causes, v_turns, v_consumer_ids, v_due_at
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons, p_causes, p_turns, p_consumer_ids)
        as r (position, last_position, attempts, delay_seconds, reason, cause, turn, consumer_id)
    cross join lateral (
        select least(
            v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(r.attempts, 1) - 1, 40)
        )::double precision as seconds
    ) as w
    cross join lateral generate_series(r.position, r.last_position) as p;

    if p_cause not in ('returned', 'expired', 'full') then
        insert into fastpubsub.failures (
            topic_key, subscription_key, position, failed_at, attempt, cause, reason, consumer_id
        )
        select
            p_topic_key, p_subscription_key, u.position, p_now, u.attempts, p_cause, coalesce(u.reason, substr(u.cause, 3)),
            u.consumer_id
        from unnest(v_positions, v_attempts, v_reasons, v_causes, v_consumer_ids) as u (position, attempts, reason, cause, consumer_id)
        order by u.position;
        for v_position in
            select u.position from unnest(v_positions, v_attempts) as u (position, attempts) where u.attempts % 20 = 0
        loop
            perform fastpubsub.forget_old_failures(p_topic_key, p_subscription_key, v_position);
        end loop;
    end if;
    if 0 >= any(v_turns) then
        v_turns := fastpubsub.name_turns(p_topic_key, p_subscription_key, v_positions, v_turns, v_cursor.position);
    end if;
    if array_remove(v_turns, null) <> '{}' then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        select p_topic_key, p_subscription_key, u.turn, u.position, u.due_at, u.attempts, concat(p_cause, u.cause)
        from unnest(v_positions, v_attempts, v_due_at, v_reasons, v_causes, v_turns)
            as u (position, attempts, due_at, reason, cause, turn)
        where u.attempts < v_settings.max_delivery_attempts and u.reason is null and u.turn is not null;
    end if;
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select p_topic_key, p_subscription_key, u.due_at, u.position, u.attempts, concat(p_cause, u.cause)
    from unnest(v_positions, v_attempts, v_due_at, v_reasons, v_causes, v_turns)
        as u (position, attempts, due_at, reason, cause, turn)
    where u.attempts < v_settings.max_delivery_attempts and u.reason is null and u.turn is null
    order by u.position;
    select array_agg(u.position), array_agg(case when v_settings.on_dead_letter = 'hold' then u.turn end) into v_dead, v_dead_turns
    from unnest(v_positions, v_attempts, v_reasons, v_turns) as u (position, attempts, reason, turn)
    where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null;
    if v_settings.on_dead_letter = 'hold' then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        select p_topic_key, p_subscription_key, u.turn, u.position, 'infinity', 0, 'put aside'
        from unnest(v_dead, v_dead_turns) as u (position, turn)
        where u.turn is not null;
    end if;
    if v_settings.ordered then
        perform fastpubsub.park_after(p_topic_key, p_subscription_key, v_turns, p_now);
    end if;
    if v_dead is null then
        if v_settings.ordered then
            perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_turns, p_now);
        end if;
        return 0;
    end if;
    -- After a seek a message can die again: that replaces its older dead letter, which counts as purged.
    select count(*) into v_replaced
    from unnest(v_dead) as p (position)
    cross join lateral (
        select from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p.position
        limit 1
    ) as d;
    insert into fastpubsub.dead_letters as d (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key, turn
    )
    select
        p_topic_key, p_subscription_key, u.position, coalesce(m.created_at, v.created_at), p_now, u.attempts,
        coalesce(
            u.reason,
            format('%s on delivery attempt %s of %s%s', p_cause, u.attempts, v_settings.max_delivery_attempts, u.cause)
        ),
        coalesce(m.payload, v.payload), coalesce(m.attributes, v.attributes), coalesce(m.ordering_key, v.ordering_key),
        case when v_settings.on_dead_letter = 'hold' then u.turn end
    from (
        select u.position, u.attempts, u.reason, u.cause, u.turn
        from unnest(v_positions, v_attempts, v_reasons, v_causes, v_turns) as u (position, attempts, reason, cause, turn)
        where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null
        order by u.position
    ) as u
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
        limit 1
    ) as v on true
    on conflict (topic_key, subscription_key, position) do update set
        died_at = excluded.died_at, attempts = excluded.attempts, reason = excluded.reason, turn = excluded.turn;
    get diagnostics v_died = row_count;
    if v_settings.dead_letter_topic is not null then
        perform fastpubsub.publish_dead_letters(p_topic_key, p_subscription_key, v_dead, v_settings.dead_letter_topic);
    end if;
    foreach v_position in array v_dead loop
        delete from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = v_position;
        if found or v_replaced > 0 then
            perform fastpubsub.forget_old_failures(p_topic_key, p_subscription_key, v_position);
        end if;
    end loop;
    if v_settings.ordered then
        perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_turns, p_now);
    end if;
    if v_replaced > 0 then
        perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + v_replaced);
    end if;
    return v_died;
end;
$$;

-- functions/settle_and_claim_2.sql
-- Settles, then claims, in one transaction: nothing is claimed when something cannot be settled, and messages that are given back
-- without a delay may be claimed again at once. The runs of ids are those of p_counts[1] acks, p_counts[2] nacks, p_counts[3] returns,
-- p_counts[4] rejects and p_counts[5] extensions, one after the other; p_seconds has the delays and extensions, p_reasons the reasons,
-- by run. `outcomes` says of every id, in the order of the runs, what take_leases says; `died` counts what was nacked for the last time.
--
-- The rest is claim_messages_2; without p_limits nothing is claimed. The cursor is locked first, even for an ack of whole leases, because
-- whoever holds leases may not wait for the cursor. The usual case, acks of whole leases and a claim of what comes next in the log, is done
-- by end_whole_leases and claim_stretch; in an ordered subscription by end_acked and claim_in_order.
create or replace function fastpubsub.settle_and_claim_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_counts integer [],
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_seconds integer [],
    p_reasons text [],
    p_lengths integer [],
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_rows bigint default 50000,
    p_scan_milliseconds integer default 20,
    p_now timestamptz default null,
    out outcomes smallint [],
    out died integer,
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
    out freed boolean,
    out ttl_expired integer,
    out dead_lettered integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_durable text;
    v_settings fastpubsub.cursors;
    v_first integer := 1;
    v_end integer;
    v_at_once boolean;
    v_acked record;
    v_nacked record;
    v_rejected record;
    v_claimed record;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    -- Kind by kind, leases would be locked in another order than by an ack of the same ones that holds no cursor.
    if cardinality(array_remove(p_counts, 0)) > 1 then
        perform from (
            select r.position, r.position + r.length - 1 as last_position
            from unnest(p_positions, p_lengths) as r (position, length)
            order by r.position
        ) as r
        cross join lateral (
            select from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position > r.position - 100 and l.position <= r.last_position and l.last_position >= r.position
            order by l.position
            for update
        ) as l;
    end if;
    died := 0;
    v_end := p_counts[1];
    -- What goes on of the keys of an ordered subscription is handed out without having waited in a table.
    v_at_once := v_end > 0 and v_end = cardinality(p_positions) and coalesce(cardinality(p_limits), 0) > 0 and v_settings.ordered
    and v_settings.paused_at is null and v_settings.is_pushed is not true and v_settings.max_in_flight is null
    and v_settings.rate_limit is null;
    if v_end = cardinality(p_positions) and not v_settings.ordered then
        v_acked := fastpubsub.end_whole_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_lengths);
        outcomes := v_acked.outcomes;
        freed := false;
        v_first := v_acked.runs + 1;
    end if;
    if v_end >= v_first then
        v_acked := fastpubsub.end_acked(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now, v_settings.ordered, not v_at_once
        );
        outcomes := settle_and_claim_2.outcomes || v_acked.outcomes;
        freed := v_acked.freed;
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[2];
    if v_end >= v_first then
        v_nacked := fastpubsub.nack_messages(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_seconds[v_first:v_end], p_lengths[v_first:v_end], p_now, p_reasons[v_first:v_end]
        );
        outcomes := settle_and_claim_2.outcomes || v_nacked.outcomes;
        died := v_nacked.died;
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[3];
    if v_end >= v_first then
        outcomes := settle_and_claim_2.outcomes || fastpubsub.return_leases(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now
        );
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[4];
    if v_end >= v_first then
        v_rejected := fastpubsub.reject_messages_2(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_reasons[v_first:v_end], p_lengths[v_first:v_end], p_now
        );
        outcomes := settle_and_claim_2.outcomes || v_rejected.outcomes;
        freed := coalesce(settle_and_claim_2.freed, false) or v_rejected.freed;
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[5];
    if v_end >= v_first then
        outcomes := settle_and_claim_2.outcomes || fastpubsub.extend_leases(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_seconds[v_first:v_end], p_lengths[v_first:v_end], p_now
        );
    end if;

    if v_at_once then
        v_claimed := fastpubsub.claim_in_order(
            v_settings, p_limits, p_consumer_ids, p_max_bytes, p_scan_milliseconds, coalesce(p_now, clock_timestamp()), null, null,
            v_acked.turns, v_acked.positions, v_acked.last_positions
        );
        token := v_claimed.token;
        expires_at := v_claimed.expires_at;
        lease_seconds := v_settings.ack_deadline_seconds;
        scanned := v_claimed.scanned;
        last := v_claimed.last;
        positions := v_claimed.positions;
        attempts := v_claimed.attempts;
        created_at := v_claimed.created_at;
        payloads := v_claimed.payloads;
        attributes := v_claimed.attributes;
        unreadable := v_claimed.unreadable;
        unreadable_created_at := v_claimed.unreadable_created_at;
        filtered := v_claimed.filtered;
        paused := false;
        ordering_keys := v_claimed.ordering_keys;
        shares := v_claimed.shares;
        limited_seconds := case when v_claimed.is_cut then 0 end;
        freed := v_claimed.freed;
        ttl_expired := v_claimed.ttl_expired;
        dead_lettered := v_claimed.dead_lettered;
    elsif cardinality(p_limits) > 0 then
        if
            v_settings.paused_at is null and v_settings.is_pushed is not true and not v_settings.ordered and v_settings.fair_by is null
            and v_settings.filter_path is null and v_settings.max_in_flight is null and v_settings.rate_limit is null
        then
            v_now := coalesce(p_now, clock_timestamp());
            v_claimed := fastpubsub.claim_stretch(
                p_topic_key, p_subscription_key, p_limits, p_consumer_ids, p_max_bytes, v_now, v_settings.ack_deadline_seconds
            );
            if v_claimed.is_usual then
                token := v_claimed.token;
                expires_at := v_claimed.expires_at;
                lease_seconds := v_claimed.lease_seconds;
                scanned := v_claimed.scanned;
                last := v_claimed.last;
                positions := v_claimed.positions;
                attempts := v_claimed.attempts;
                created_at := v_claimed.created_at;
                payloads := v_claimed.payloads;
                attributes := v_claimed.attributes;
                ordering_keys := v_claimed.ordering_keys;
                filtered := 0;
                paused := false;
                ttl_expired := 0;
                return;
            end if;
        end if;
        v_durable := current_setting('synchronous_commit');
        select
            c.token, c.expires_at, c.scanned, c.last, c.positions, c.attempts, c.created_at, c.payloads, c.attributes, c.unreadable,
            c.unreadable_created_at, c.lease_seconds, c.filtered, c.paused, c.ordering_keys, c.shares,
            c.limited_seconds, c.ttl_expired, c.dead_lettered
        into
            token, expires_at, scanned, last, settle_and_claim_2.positions, attempts, created_at, payloads, attributes, unreadable,
            unreadable_created_at, lease_seconds, filtered, paused, ordering_keys, shares,
            limited_seconds, ttl_expired, dead_lettered
        from fastpubsub.claim_messages_2(
            p_topic_key, p_subscription_key, p_limits, p_consumer_ids, p_max_bytes, p_scan_rows, p_scan_milliseconds, p_now
        ) as c;
        -- A claim alone may be lost in a crash; what was settled may not.
        perform set_config('synchronous_commit', v_durable, true);
    end if;
end;
$$;

-- functions/take_stretch.sql
drop function fastpubsub.take_stretch;
-- For read_log_in_order without a filter: all messages in (p_after, p_to] whose key is not busy, and those keys that are, as there. p_taken
-- are those that the same claim took before. `scanned` is null where this is not all there is to it: a message has
-- expired, or they do not fit into p_limit and p_max_bytes. What belongs to the messages comes with them where all of them are taken,
-- and each is small enough to fit whatever the others are.
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
    out expired bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_count integer;
    v_is_all boolean;
    v_last bigint;
    v_hashes bigint [];
    v_sizes integer [];
    v_keys bigint;
    v_keyless boolean;
    -- Of the keys that are busy or have several messages here.
    v_marked bigint [];
    v_busy bigint [];
    v_tails bigint [];
    v_place integer;
    v_is_told boolean [];
begin
    select
        count(*), max(s.position), bool_and((s.expires_at > p_now) is not false), array_agg(s.key_hash), bool_or(s.key_hash is null),
        array_agg(s.size), sum(s.size), array_agg(s.position), array_agg(s.created_at),
        array_agg(s.payload) filter (where s.fits), array_agg(s.attributes) filter (where s.fits), array_agg(s.ordering_key)
    into
        v_count, v_last, v_is_all, v_hashes, v_keyless, v_sizes, take_stretch.size, take_stretch.positions, take_stretch.created_at,
        take_stretch.payloads, take_stretch.attributes, take_stretch.ordering_keys
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
            hashtextextended(m.ordering_key, 0) as key_hash,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
            p_to - p_after <= p_limit
            and pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) <= p_max_bytes / p_limit as fits
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    ) as s;
    is_full := false;
    filtered := 0;
    -- As everywhere: positions are dense.
    if v_is_all is not true or v_last <> p_after + v_count then
        return;
    end if;
    -- The message of a key before the first one here tells whether the key is busy.
    select
        count(*), array_agg(k.key_hash) filter (where k.messages > 1 or k.busy is not null),
        array_agg(k.busy) filter (where k.messages > 1 or k.busy is not null),
        array_agg(p_after + k.last) filter (where k.messages > 1 or k.busy is not null)
    into v_keys, v_marked, v_busy, v_tails
    from (
        select
            k.*,
            (
                select b.position
                from (
                    select b.position from fastpubsub.message_keys as b
                    where
                        b.topic_key = p_topic_key and b.key_hash = k.key_hash and b.position < p_after + k.first
                        and b.position >= p_first
                    order by b.position desc limit 1
                ) as b
                where
                    (
                        select y.position from fastpubsub.busy_keys as y
                        where y.topic_key = p_topic_key and y.subscription_key = p_subscription_key and y.position = b.position
                        limit 1
                    ) is not null
                    or (
                        select l.last_position >= b.position and l.turn <= 0 from fastpubsub.leases as l
                        where
                            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                            and l.position > b.position - 100 and l.position <= b.position
                        order by l.position desc limit 1
                    )
                    or b.position = any(p_taken)
            ) as busy
        from (
            select u.key_hash, min(u.ordinal) as first, max(u.ordinal) as last, count(*) as messages
            from unnest(v_hashes) with ordinality as u (key_hash, ordinal)
            where u.key_hash is not null
            group by u.key_hash
        ) as k
        -- Or it would be looked up each time that it is named.
        offset 0
    ) as k;
    if v_marked is null then
        turns := array_fill(-1::bigint, array[v_count]);
    elsif v_keys = 1 and not v_keyless then
        if v_busy[1] is null then
            turns := array_fill(v_last, array[v_count]);
        else
            busy := v_busy;
            tails := v_tails;
            positions := null;
            size := 0;
        end if;
    else
        v_is_told := array_fill(false, array[cardinality(v_marked)]);
        positions := null;
        size := 0;
        for i in 1..v_count loop
            v_place := array_position(v_marked, v_hashes[i]);
            if v_busy[v_place] is null then
                positions := take_stretch.positions || p_after + i;
                turns := take_stretch.turns || coalesce(v_tails[v_place], -1);
                size := take_stretch.size + v_sizes[i];
            elsif not v_is_told[v_place] then
                v_is_told[v_place] := true;
                busy := take_stretch.busy || v_busy[v_place];
                tails := take_stretch.tails || v_tails[v_place];
            end if;
        end loop;
        if cardinality(take_stretch.busy) > 1 then
            select array_agg(u.busy order by u.busy), array_agg(u.tail order by u.busy) into take_stretch.busy, take_stretch.tails
            from unnest(take_stretch.busy, take_stretch.tails) as u (busy, tail);
        end if;
    end if;
    if coalesce(cardinality(take_stretch.positions), 0) < v_count or coalesce(cardinality(take_stretch.payloads), 0) < v_count then
        created_at := null;
    end if;
    v_count := coalesce(cardinality(take_stretch.positions), 0);
    if
        take_stretch.size <= p_max_bytes
        -- The cursor stops at the last one for which there was room.
        and (v_count < p_limit or (v_count = p_limit and take_stretch.positions[v_count] = v_last))
    then
        scanned := v_last;
    end if;
end;
$$;

-- functions/take_turns.sql
-- For a claim of an ordered subscription: takes due retries in their order after the floor, up to 4, and with each what its key has after
-- it, up to p_limit messages and p_max_bytes together (at least one). `due_at` and `retry_position` are the next floor. What has expired is
-- in `expired` instead, with the attempts that it had. `are_new` says that nobody had any of the messages before, `is_more` that something
-- else is due.
create or replace function fastpubsub.take_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_cursor bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out turns bigint [],
    out due_at timestamptz,
    out retry_position bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out expired_attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out are_new boolean,
    out is_more boolean
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_turns constant integer := 4;
    v_due_at timestamptz [];
    v_positions bigint [];
    v_attempts integer [];
    v_turns bigint [];
    v_put_aside boolean [];
    v_sizes bigint [];
    v_are_expired boolean [];
    v_share integer;
    v_part record;
    v_passed bigint [];
    v_retry_position bigint;
begin
    positions := '{}';
    attempts := '{}';
    turns := '{}';
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    expired_attempts := '{}';
    are_new := false;
    select
        array_agg(r.due_at), array_agg(r.position), array_agg(r.attempts), array_agg(r.turn), array_agg(r.reason = 'put aside'),
        array_agg(r.size), array_agg(r.is_expired)
    into v_due_at, v_positions, v_attempts, v_turns, v_put_aside, v_sizes, v_are_expired
    from (
        select
            r.due_at, r.position, r.attempts, r.turn, r.reason,
            coalesce(m.size, v.size) as size, (m.expires_at <= p_now) is true and v.size is null as is_expired
        from fastpubsub.retries as r
        left join lateral (
            select pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size, m.expires_at
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = r.position
            limit 1
        ) as m on true
        -- A reprocessed dead letter does not expire.
        left join lateral (
            select pg_column_size(v.payload) + coalesce(pg_column_size(v.attributes), 0) as size from fastpubsub.revived as v
            where
                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
                and (m.size is null or m.expires_at is not null)
            limit 1
        ) as v on true
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (p_floor_due_at, p_floor_position) and r.due_at <= p_now
        order by r.due_at, r.position
        limit least(p_limit, c_turns) + 1
    ) as r;
    is_more := cardinality(v_positions) > least(p_limit, c_turns);
    if take_turns.is_more then
        v_positions := v_positions[: least(p_limit, c_turns)];
        v_due_at := v_due_at[: least(p_limit, c_turns)];
        v_turns := v_turns[: least(p_limit, c_turns)];
        v_put_aside := v_put_aside[: least(p_limit, c_turns)];
    end if;
    v_retry_position := v_positions[cardinality(v_positions)];
    v_share := greatest(p_limit / cardinality(v_positions), 1);
    if p_path is null and true = all(v_put_aside) then
        v_part := fastpubsub.take_put_aside(
            p_topic_key, p_subscription_key, v_positions, v_turns, p_cursor, v_share, p_max_bytes, p_now
        );
        if v_part.positions is not null then
            positions := v_part.positions;
            attempts := array_fill(1, array[cardinality(v_part.positions)]);
            turns := v_part.turns;
            size := v_part.size;
            routed := cardinality(v_part.positions);
            created_at := v_part.created_at;
            payloads := v_part.payloads;
            attributes := v_part.attributes;
            ordering_keys := v_part.ordering_keys;
            due_at := v_due_at[cardinality(v_due_at)];
            retry_position := v_positions[cardinality(v_positions)];
            are_new := true;
            v_positions := '{}';
        end if;
    end if;
    for i in 1..coalesce(cardinality(v_positions), 0) loop
        exit when cardinality(take_turns.positions) > 0 and take_turns.size + v_sizes[i] > p_max_bytes;
        due_at := v_due_at[i];
        retry_position := v_positions[i];
        if v_turns[i] is null and v_are_expired[i] then
            expired := take_turns.expired || v_positions[i];
            expired_attempts := take_turns.expired_attempts || v_attempts[i];
            continue;
        elsif v_turns[i] is null then
            positions := take_turns.positions || v_positions[i];
            attempts := take_turns.attempts || v_attempts[i] + 1;
            turns := take_turns.turns || null::bigint;
            size := take_turns.size + v_sizes[i];
            continue;
        end if;
        v_part := fastpubsub.continue_turn(
            p_topic_key, p_subscription_key, v_turns[i], v_positions[i], v_attempts[i], v_put_aside[i], p_cursor, p_path, v_share,
            p_max_bytes - take_turns.size, p_now
        );
        if v_part.positions = '{}' then
            v_passed := v_passed || v_part.turn;
        else
            positions := take_turns.positions || v_part.positions;
            attempts := take_turns.attempts || v_part.attempts;
            turns := take_turns.turns || array_fill(v_part.turn, array[cardinality(v_part.positions)]);
        end if;
        size := take_turns.size + v_part.size;
        routed := take_turns.routed + v_part.routed;
        expired := take_turns.expired || v_part.expired;
        expired_attempts := take_turns.expired_attempts || v_part.expired_attempts;
        filtered := take_turns.filtered + v_part.filtered;
        unreadable := take_turns.unreadable || v_part.unreadable;
    end loop;
    -- What waits behind what has expired may be due, too.
    is_more := coalesce(take_turns.is_more or take_turns.retry_position <> v_retry_position, false) or v_passed is not null;
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_turns.due_at, take_turns.retry_position);
    if v_passed is not null then
        perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_passed, p_now + interval '1 microsecond');
    end if;
    if not take_turns.are_new then
        v_part := fastpubsub.read_claimed(p_topic_key, p_subscription_key, take_turns.positions);
        created_at := v_part.created_at;
        payloads := v_part.payloads;
        attributes := v_part.attributes;
        ordering_keys := v_part.ordering_keys;
    end if;
end;
$$;

-- functions/update_subscription_2.sql
drop function fastpubsub.update_subscription_2;
-- A null parameter keeps the present value; p_change_filter tells a filter that is removed from one that stays. The new filter judges the
-- messages ahead; messages that the old one skipped do not come back. p_push is that of set_push, whose answer is `is_new_secret`;
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds, p_max_backlog or p_backoff_jitter of 0 removes it,
-- p_dead_letter_topic of '' that topic. With p_expire_after_seconds the time until it expires begins anew. p_on_dead_letter counts for
-- dead letters from now on.
create or replace function fastpubsub.update_subscription_2(
    p_id text,
    p_change_filter boolean default false,
    p_filter json default null,
    p_ack_deadline_seconds integer default null,
    p_max_delivery_attempts integer default null,
    p_backoff_min_seconds integer default null,
    p_backoff_max_seconds integer default null,
    p_change_push boolean default false,
    p_push json default null,
    p_max_in_flight integer default null,
    p_rate_limit double precision default null,
    p_dead_letter_topic text default null,
    p_expire_after_seconds integer default null,
    p_on_expired text default null,
    p_on_dead_letter text default null,
    p_now timestamptz default null,
    p_max_backlog integer default null,
    p_on_full text default null,
    p_backoff_jitter double precision default null,
    out is_new_secret boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_keys record := fastpubsub.resolve_subscription(p_id);
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.limit_backlog(v_keys.topic_key, p_max_backlog);
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    if coalesce(p_backoff_max_seconds, v_cursor.backoff_max_seconds) < coalesce(p_backoff_min_seconds, v_cursor.backoff_min_seconds) then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(v_cursor.ordered, p_on_dead_letter);
    perform fastpubsub.check_on_full(v_cursor.ordered, p_on_full, v_cursor.fair_by);
    if p_dead_letter_topic is not null then
        perform fastpubsub.require_dead_letter_topic(
            (select t.id from fastpubsub.topics as t where t.topic_key = v_cursor.topic_key), p_dead_letter_topic
        );
    end if;
    update fastpubsub.cursors as c set
        filter_path = case when p_change_filter then v_path else c.filter_path end,
        ack_deadline_seconds = coalesce(p_ack_deadline_seconds, c.ack_deadline_seconds),
        max_delivery_attempts = coalesce(p_max_delivery_attempts, c.max_delivery_attempts),
        backoff_min_seconds = coalesce(p_backoff_min_seconds, c.backoff_min_seconds),
        backoff_max_seconds = coalesce(p_backoff_max_seconds, c.backoff_max_seconds),
        max_in_flight = nullif(coalesce(p_max_in_flight, c.max_in_flight), 0),
        rate_limit = nullif(coalesce(p_rate_limit, c.rate_limit), 0),
        dead_letter_topic = nullif(coalesce(p_dead_letter_topic, c.dead_letter_topic), ''),
        expire_after_seconds = nullif(coalesce(p_expire_after_seconds, c.expire_after_seconds), 0),
        on_expired = coalesce(p_on_expired, c.on_expired),
        on_dead_letter = coalesce(p_on_dead_letter, c.on_dead_letter),
        max_backlog = nullif(coalesce(p_max_backlog, c.max_backlog), 0),
        on_full = coalesce(p_on_full, c.on_full),
        backoff_jitter = nullif(coalesce(p_backoff_jitter, c.backoff_jitter), 0)
    where c.topic_key = v_cursor.topic_key and c.subscription_key = v_cursor.subscription_key;
    if p_change_filter then
        update fastpubsub.subscriptions as s set filter = case when v_path is not null then p_filter end
        where s.subscription_key = v_cursor.subscription_key;
        perform fastpubsub.remember_filter(
            v_cursor.topic_key, v_cursor.subscription_key,
            fastpubsub.cursor_position(v_cursor.topic_key, v_cursor.subscription_key) + 1,
            case when v_path is not null then p_filter end
        );
    end if;
    if p_expire_after_seconds = 0 then
        delete from fastpubsub.subscription_uses as u
        where u.topic_key = v_cursor.topic_key and u.subscription_key = v_cursor.subscription_key;
    elsif p_expire_after_seconds is not null then
        insert into fastpubsub.subscription_uses as u (topic_key, subscription_key, used_at)
        values (v_cursor.topic_key, v_cursor.subscription_key, coalesce(p_now, clock_timestamp()))
        on conflict (topic_key, subscription_key) do update set used_at = excluded.used_at;
    end if;
    is_new_secret := false;
    if p_change_push then
        is_new_secret := fastpubsub.set_push(v_cursor.topic_key, v_cursor.subscription_key, p_push);
    end if;
    perform fastpubsub.require_push_timeout(v_cursor.topic_key, v_cursor.subscription_key);
end;
$$;
