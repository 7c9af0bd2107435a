-- functions/ack_messages_2.sql
-- Settles deliveries for good. The ids come in runs; the result for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases).
-- `freed` says whether a key of an ordered subscription can go on, which is locked; others are not.
create or replace function fastpubsub.ack_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out freed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_ordered boolean;
    v_ended record;
begin
    perform fastpubsub.begin_call(true);
    select c.ordered into v_ordered from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    elsif v_ordered then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    end if;
    v_ended := fastpubsub.end_acked(
        p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths, p_now, v_ordered
    );
    outcomes := v_ended.outcomes;
    freed := v_ended.freed;
end;
$$;

-- functions/add_settlement.sql
-- Notes what the application's transaction settles when it commits (see settle_at_commit), if all of it is held now. Ack ids are the
-- rights: only who has pulled a delivery knows its token, so bare message ids are refused. FP422: a nack, a reject, or an ack of an
-- ordered subscription, at another isolation level than read committed.
create or replace function fastpubsub.add_settlement(
    p_subscription text,
    p_action text,
    p_ack_ids text [],
    p_delay_seconds integer,
    p_reason text
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
    v_positions bigint [];
    v_tokens bigint [];
    v_held integer;
    v_level text := current_setting('transaction_isolation');
    v_ordered boolean := false;
begin
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key
    from fastpubsub.subscriptions as s where s.id = p_subscription;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('subscription "%s" does not exist', left(p_subscription, 128)),
            hint = 'Create it first, or correct its name.';
    elsif v_level <> 'read committed' then
        select c.ordered into v_ordered from fastpubsub.cursors as c
        where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key;
    end if;
    -- Where a nack puts its message, and what goes on of a key, depends on the newest claim: else it would wait for ever.
    if v_level <> 'read committed' and (p_action <> 'ack' or v_ordered) then
        raise exception using
            errcode = 'FP422',
            message = format(
                '%s needs the isolation level read committed, not %s',
                case when p_action = 'ack' then 'an ack of an ordered subscription' else 'a ' || p_action end, v_level
            ),
            detail = 'What others have committed since decides what comes after the delivery, and an older snapshot does not show it.',
            hint = 'Use read committed for this transaction, or roll back and settle over HTTP after the work has committed.';
    end if;
    select i.positions, i.tokens into v_positions, v_tokens from fastpubsub.read_ack_ids(v_topic_key, p_ack_ids) as i;
    perform pg_advisory_xact_lock_shared(fastpubsub.transaction_lock(t.token))
    from (select distinct u.token from unnest(v_tokens) as u (token) order by u.token) as t;
    v_held := cardinality(fastpubsub.held_leases(v_topic_key, v_subscription_key, v_positions, v_tokens));
    if v_held < cardinality(p_ack_ids) then
        raise exception using
            errcode = 'FP410',
            message = format(
                '%s of %s deliveries of subscription "%s" are not held any more', cardinality(p_ack_ids) - v_held, cardinality(p_ack_ids),
                p_subscription
            ),
            hint = 'They were settled, or their deadline has passed. Roll back: whoever holds the messages now does the work.';
    end if;
    -- Whatever the caller has set for its own constraints.
    set constraints fastpubsub.settlements_at_commit deferred;
    insert into fastpubsub.settlements (
        transaction_id, topic_key, subscription_key, action, positions, tokens, lengths, delay_seconds, reason
    )
    select
        pg_current_xact_id(), v_topic_key, v_subscription_key, p_action, array_agg(r.position order by r.position),
        array_agg(r.token order by r.position), array_agg(r.length order by r.position), p_delay_seconds, p_reason
    from (
        select min(i.position) as position, i.token, count(*)::integer as length
        from (
            select u.position, u.token, u.position - row_number() over (partition by u.token order by u.position) as island
            from unnest(v_positions, v_tokens) as u (position, token)
        ) as i
        group by i.token, i.island
    ) as r;
end;
$$;

-- functions/check_on_dead_letter.sql
-- Only an ordered subscription has keys that a dead letter can hold.
create or replace function fastpubsub.check_on_dead_letter(p_ordered boolean, p_on_dead_letter text) returns void
language plpgsql immutable as $$
begin
    if p_on_dead_letter = 'hold' and not p_ordered then
        raise exception using
            errcode = 'FP422',
            message = 'on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true';
    end if;
end;
$$;

-- functions/check_on_full.sql
drop function fastpubsub.check_on_full;
-- What the cursor of an ordered or fair subscription passes of a busy key is put aside, and comes all the same: so nothing can
-- be dropped there. One that is ordered lets its keys take turns anyway.
create or replace function fastpubsub.check_on_full(p_ordered boolean, p_on_full text, p_fair_by text default null) returns void
language plpgsql immutable as $$
begin
    if p_ordered and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: an ordered subscription cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
    end if;
    if p_fair_by is not null and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: a subscription with fair_by cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
    end if;
    if p_ordered and p_fair_by is not null then
        raise exception using
            errcode = 'FP422',
            message = 'fair_by: an ordered subscription lets its keys take turns already: leave fair_by out, or ordered';
    end if;
end;
$$;

-- functions/claim_in_order.sql
-- claim_messages_2 for an ordered subscription that is locked: the messages of a key go to one consumer at a time, in the order of the log.
-- The consumers are served one after the other, `shares` says how many messages each has, at most
-- p_room together. What is due comes first, then the log. Messages that have expired are
-- passed as in claim_messages_2. `is_cut`: a consumer has less than it could have, because of p_max_bytes.
create or replace function fastpubsub.claim_in_order(
    p_settings fastpubsub.cursors,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_milliseconds integer,
    p_now timestamptz,
    p_room integer default null,
    p_first_leased bigint default null,
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
    v_topic_key bigint := p_settings.topic_key;
    v_subscription_key bigint := p_settings.subscription_key;
    -- Consumers without a key look at the log while others want to settle, who need the lock.
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_scan_milliseconds / 4000.0);
    v_last bigint := fastpubsub.last_position(v_topic_key);
    v_cursor fastpubsub.claims;
    v_random text := gen_random_uuid()::text;
    v_left integer;
    v_is_due boolean := true;
    v_bytes bigint := 0;
    v_part record;
    v_positions bigint [];
    v_attempts integer [];
    v_turns bigint [];
    v_first bigint;
    v_retried integer;
    v_expired bigint [] := '{}';
    v_expired_attempts integer [] := '{}';
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key
    order by c.sequence desc limit 1;
    filtered := 0;
    positions := '{}';
    is_cut := false;
    token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
    expires_at := p_now + make_interval(secs => p_settings.ack_deadline_seconds);
    for v_consumer in 1..cardinality(p_limits) loop
        v_positions := '{}';
        v_attempts := '{}';
        v_turns := '{}';
        v_retried := 0;
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
            v_left > 0 and v_bytes < p_max_bytes and v_cursor.position < v_last and (v_consumer = 1 or clock_timestamp() < v_until)
        then
            v_first := coalesce(v_first, fastpubsub.first_position(v_topic_key, v_last));
            v_part := fastpubsub.read_log_in_order(
                v_topic_key, v_subscription_key, v_cursor.position, v_last, p_settings.filter_path, v_left, p_max_bytes - v_bytes,
                v_bytes = 0, v_until, p_now, v_first
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
        is_cut := claim_in_order.is_cut or (v_left > 0 and v_is_due);
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
-- `limited_seconds`: in how many seconds it is worth asking again, when a limit of the subscription kept messages back; 0 when p_max_bytes
-- did so in an ordered one.
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
        lease_seconds := v_settings.ack_deadline_seconds;
        last := greatest(fastpubsub.last_position(p_topic_key), v_cursor.position);
        select
            c.token, c.expires_at, c.scanned, c.positions, c.attempts, c.created_at, c.payloads, c.attributes, c.unreadable,
            c.unreadable_created_at, c.filtered, c.ordering_keys, c.shares, c.ttl_expired, c.dead_lettered, case when c.is_cut then 0 end
        into
            token, expires_at, scanned, claim_messages_2.positions, attempts, created_at, payloads, attributes, unreadable,
            unreadable_created_at, filtered, ordering_keys, shares, ttl_expired, dead_lettered, limited_seconds
        from fastpubsub.claim_in_order(
            v_settings, p_limits, p_consumer_ids, p_max_bytes, p_scan_milliseconds, v_now, v_room, v_first_leased
        ) as c;
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

-- functions/claim_stretch.sql
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
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
    )
    select
        p_topic_key, p_subscription_key, r.first_position, r.last_position, claim_stretch.token, p_now,
        claim_stretch.expires_at, 1, false, r.consumer_id
    from unnest(v_firsts, v_lasts, v_consumer_ids) as r (first_position, last_position, consumer_id);
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, full_at,
        ttl_expired
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, claim_stretch.scanned, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_found, v_cursor.purged, v_cursor.dropped, v_cursor.filtered, v_cursor.full_at, v_cursor.ttl_expired
    );
end;
$$;

-- functions/continue_turn.sql
-- For a claim of an ordered subscription, which has taken the retry of a turn away: up to p_limit messages of its key, in order. These are
-- the one that waited (p_is_put_aside: nobody had it yet), then those that are parked and due, then those that were put aside and pass the
-- filter, up to the cursor. `turn` is the turn from now on. What has expired is in `expired` instead,
-- with the attempts that it had. Without positions the key goes on, or is free.
create or replace function fastpubsub.continue_turn(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turn bigint,
    p_position bigint,
    p_attempts integer,
    p_is_put_aside boolean,
    p_cursor bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out turn bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out expired_attempts integer []
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
    -- Of what was put aside behind a filter, in one call.
    c_looked_at constant integer := 1000;
    v_part record;
    v_match record;
    v_is_expired boolean;
    v_turn bigint;
begin
    turn := p_turn;
    positions := '{}';
    attempts := '{}';
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    expired_attempts := '{}';
    if not p_is_put_aside then
        select
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0),
            -- A reprocessed dead letter does not expire.
            (m.expires_at <= p_now) is true
            and not exists (
                select from fastpubsub.revived as v
                where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p_position
            )
        into continue_turn.size, v_is_expired
        from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
        if v_is_expired then
            expired := array[p_position];
            expired_attempts := array[p_attempts];
            size := 0;
        else
            positions := array[p_position];
            attempts := array[p_attempts + 1];
        end if;
        for v_part in
            select
                p.position, p.due_at, p.attempts, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true
                and not exists (
                    select from fastpubsub.revived as v
                    where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p.position
                ) as is_expired
            from fastpubsub.parked as p
            cross join lateral (
                select m.payload, m.attributes, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = p.position
                limit 1
            ) as m
            where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
            order by p.position
        loop
            if
                v_part.due_at > p_now or cardinality(continue_turn.positions) >= p_limit
                or (cardinality(continue_turn.positions) > 0 and continue_turn.size + v_part.size > p_max_bytes)
            then
                return;
            end if;
            delete from fastpubsub.parked as p
            where
                p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
                and p.position = v_part.position;
            if v_part.is_expired then
                expired := continue_turn.expired || v_part.position;
                expired_attempts := continue_turn.expired_attempts || v_part.attempts;
                continue;
            end if;
            positions := continue_turn.positions || v_part.position;
            attempts := continue_turn.attempts || v_part.attempts + 1;
            size := continue_turn.size + v_part.size;
        end loop;
    end if;
    loop
        v_turn := continue_turn.turn;
        for v_part in
            select k.position, o.size, o.is_expired
            from fastpubsub.messages as m
            cross join lateral (
                select k.position from fastpubsub.message_keys as k
                where
                    k.topic_key = p_topic_key and k.key_hash = hashtextextended(m.ordering_key, 0) and k.position > continue_turn.turn
                    and k.position <= p_cursor
                order by k.position
                limit case when p_path is null then p_limit - cardinality(continue_turn.positions) else c_looked_at end
            ) as k
            cross join lateral (
                select
                    pg_column_size(o.payload) + coalesce(pg_column_size(o.attributes), 0) as size, (o.expires_at <= p_now) is true as is_expired
                from fastpubsub.messages as o
                where o.topic_key = p_topic_key and o.position = k.position
                limit 1
            ) as o
            -- The message of the turn may be trimmed by now.
            where m.topic_key = p_topic_key and m.position = p_position
            order by k.position
        loop
            exit when
                cardinality(continue_turn.positions) >= p_limit
                or (cardinality(continue_turn.positions) > 0 and continue_turn.size + v_part.size > p_max_bytes);
            turn := v_part.position;
            if p_path is not null then
                v_match := fastpubsub.matching_positions(p_topic_key, v_part.position - 1, v_part.position, p_path, 1);
                unreadable := continue_turn.unreadable || v_match.unreadable;
                if v_match.positions is null then
                    filtered := continue_turn.filtered + 1;
                    continue;
                end if;
            end if;
            routed := continue_turn.routed + 1;
            if v_part.is_expired then
                expired := continue_turn.expired || v_part.position;
                expired_attempts := continue_turn.expired_attempts || 0;
                continue;
            end if;
            positions := continue_turn.positions || v_part.position;
            attempts := continue_turn.attempts || 1;
            size := continue_turn.size + v_part.size;
        end loop;
        -- Once, unless all that was looked at has expired.
        exit when
            continue_turn.turn = v_turn or cardinality(continue_turn.positions) > 0 or p_path is not null
            or cardinality(continue_turn.expired) >= c_looked_at;
    end loop;
end;
$$;

-- functions/count_put_aside.sql
-- Counts the messages that an ordered subscription has put aside: the cursor has passed them, and an earlier message of their key is leased
-- or waits. At most p_look of them are looked at; a filter is asked for each.
create or replace function fastpubsub.count_put_aside(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look bigint,
    out messages bigint,
    out is_estimated boolean,
    out oldest_created_at timestamptz
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_path jsonpath;
    v_looked bigint;
    v_oldest bigint;
begin
    select c.filter_path into v_path from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select count(*), count(*) filter (where a.passes), min(a.position) filter (where a.passes)
    into v_looked, count_put_aside.messages, v_oldest
    from (
        select
            a.position,
            v_path is null
            or (select f.positions is not null from fastpubsub.matching_positions(p_topic_key, a.position - 1, a.position, v_path, 1) as f)
            as passes
        from fastpubsub.put_aside(p_topic_key, p_subscription_key, p_look) as a (position)
    ) as a;
    is_estimated := v_looked >= p_look;
    select m.created_at into count_put_aside.oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_oldest;
end;
$$;

-- functions/count_refused_messages.sql
-- Counts what is refused, up to p_limit a topic: of the named topics, or else of up to p_topics topics that have any.
-- Writes nothing.
create or replace function fastpubsub.count_refused_messages(
    p_limit integer,
    p_topics integer,
    p_topic_ids text [] default null,
    out topic_id text,
    out refused bigint
) returns setof record
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
    v_topic_key bigint := 0;
    v_topic_keys bigint [] := '{}';
begin
    if p_topic_ids is not null then
        v_topic_keys := array(select t.topic_key from fastpubsub.topics as t where t.id = any(p_topic_ids));
    else
        for i in 1..p_topics loop
            select r.topic_key into v_topic_key from fastpubsub.refused_messages as r
            where r.topic_key > v_topic_key
            order by r.topic_key
            limit 1;
            exit when not found;
            v_topic_keys := v_topic_keys || v_topic_key;
        end loop;
    end if;
    foreach v_topic_key in array v_topic_keys loop
        select count(*) into refused
        from (
            select from fastpubsub.refused_messages as r where r.topic_key = v_topic_key order by r.refused_key limit p_limit
        ) as r;
        select t.id into topic_id from fastpubsub.topics as t where t.topic_key = v_topic_key;
        if found and refused > 0 then
            return next;
        end if;
    end loop;
end;
$$;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;
-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds and p_max_backlog of 0 are no limit, p_dead_letter_topic of '' no topic, and
-- p_fair_by of '' nothing, as null is.
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
        on_expired, on_dead_letter, max_backlog, on_full, fair_by
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered,
        nullif(p_max_in_flight, 0), nullif(p_rate_limit, 0), nullif(p_dead_letter_topic, ''), nullif(p_expire_after_seconds, 0),
        coalesce(p_on_expired, 'drop'), coalesce(p_on_dead_letter, 'continue'), nullif(p_max_backlog, 0), coalesce(p_on_full, 'reject'),
        nullif(p_fair_by, '')
    );
    perform fastpubsub.begin_subscription(
        create_subscription.topic_key, create_subscription.subscription_key, v_position, v_filter, p_push, p_now
    );
end;
$$;

-- functions/cut_leases.sql
-- Takes single positions out of leases for take_leases, in whatever runs they come; the caller holds the cursor. The rest of a lease stays,
-- as leases with the same token and deadline.
create or replace function fastpubsub.cut_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    out positions bigint [],
    out tokens bigint [],
    out leased_at timestamptz [],
    out attempts integer [],
    out revived boolean [],
    out consumer_ids text [],
    out ordinals integer [],
    out outcomes smallint [],
    out turns bigint []
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
    v_wanted bigint [];
    v_ordinals integer [];
    v_firsts bigint [];
    v_part record;
    v_lease fastpubsub.leases;
begin
    -- No lease is longer than 100 positions: a position belongs to the nearest lease that begins at or before it.
    select
        array_agg(i.position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.ordinal order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.first_position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.outcome order by i.ordinal, i.step)
    into v_wanted, v_ordinals, v_firsts, cut_leases.outcomes
    from (
        select
            i.position, i.ordinal, i.step, i.first_position, i.outcome,
            row_number() over (partition by i.position, i.outcome order by i.ordinal, i.step) = 1 as is_first
        from (
            select
                i.position, i.ordinal, i.step, l.position as first_position,
                case
                    when l.position is null or l.last_position < i.position then 0
                    when i.token is not null then case when l.token = i.token then 1 else 2 end
                    when
                        i.created_at = (
                            select m.created_at from fastpubsub.messages as m
                            where m.topic_key = p_topic_key and m.position = i.position
                        )
                        or i.created_at = (
                            select v.created_at from fastpubsub.revived as v
                            where
                                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = i.position
                        )
                        then 1
                    else 2
                end::smallint as outcome
            from (
                select r.position + s as position, r.token, r.created_at, r.ordinal, s as step
                from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                    with ordinality as r (position, length, token, created_at, ordinal)
                cross join lateral generate_series(0, coalesce(r.length, 1) - 1) as s
            ) as i
            left join lateral (
                select l.position, l.last_position, l.token from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position <= i.position and l.position > i.position - 100
                order by l.position desc
                limit 1
            ) as l on true
        ) as i
    ) as i;
    for v_part in
        select w.first_position, array_agg(w.position order by w.position) as positions
        from unnest(v_wanted, v_firsts) as w (position, first_position)
        group by w.first_position
        order by w.first_position
    loop
        delete from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_part.first_position
        returning l.* into v_lease;
        if not found then
            raise exception using errcode = '40001', message = 'another call settled a delivery at the same moment';
        end if;
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, v_lease.token, v_lease.leased_at, v_lease.expires_at,
            v_lease.attempts, v_lease.revived, v_lease.consumer_id, v_lease.turn
        from (
            select lag(p, 1, v_lease.position - 1) over (order by p) + 1 as position, p - 1 as last_position
            from unnest(v_part.positions || v_lease.last_position + 1) as p
        ) as r
        where r.position <= r.last_position;
        positions := cut_leases.positions || v_part.positions;
        tokens := cut_leases.tokens || array_fill(v_lease.token, array[cardinality(v_part.positions)]);
        leased_at := cut_leases.leased_at || array_fill(v_lease.leased_at, array[cardinality(v_part.positions)]);
        attempts := cut_leases.attempts || array_fill(v_lease.attempts, array[cardinality(v_part.positions)]);
        revived := cut_leases.revived || array_fill(v_lease.revived, array[cardinality(v_part.positions)]);
        consumer_ids := cut_leases.consumer_ids || array_fill(v_lease.consumer_id, array[cardinality(v_part.positions)]);
        turns := cut_leases.turns || array_fill(v_lease.turn, array[cardinality(v_part.positions)]);
    end loop;
    ordinals := v_ordinals;
end;
$$;

-- functions/empty_purges.sql
drop function fastpubsub.empty_purges;
-- Deletes up to p_limit rows per table of one deleted topic or subscription. Returns how many rows it deleted, or null
-- when there was nothing left to delete. p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.empty_purges(p_limit integer default 5000, p_topic_keys bigint [] default null) returns bigint
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
    v_purge fastpubsub.purges;
    v_table text;
    v_rows bigint;
    v_found tid [];
    v_deleted bigint := 0;
begin
    perform fastpubsub.begin_call(false);
    select p.* into v_purge from fastpubsub.purges as p
    where (p_topic_keys is null or p.topic_key = any(p_topic_keys))
    order by p.purge_key limit 1 for update skip locked;
    if not found then
        return null;
    end if;
    foreach v_table in array array ['leases', 'endpoints', 'push_attempts', 'failures', 'retries', 'dead_letters', 'redrives', 'revived', 'claims', 'filter_history', 'subscription_uses', 'history', 'consumers', 'parked', 'busy_keys', 'bundles', 'idempotency_keys', 'refused_messages', 'delayed_messages', 'fired_messages', 'message_keys', 'messages'] loop
        continue when v_table in ('idempotency_keys', 'refused_messages', 'delayed_messages', 'fired_messages', 'message_keys', 'messages') and v_purge.subscription_key is not null;
        execute format(
            'select array(select t.ctid from fastpubsub.%I as t where t.topic_key = $1%s limit $3)',
            v_table, case when v_purge.subscription_key is not null then ' and t.subscription_key = $2' else '' end
        ) into v_found using v_purge.topic_key, v_purge.subscription_key, p_limit;
        continue when cardinality(v_found) = 0;
        -- By their places: an index would be walked for all rows of the topic. Nobody updates these rows, so each is still where it was.
        perform set_config('enable_indexscan', 'off', true);
        execute format('delete from fastpubsub.%I as t where t.topic_key = $1 and t.ctid = any($2)', v_table)
        using v_purge.topic_key, v_found;
        get diagnostics v_rows = row_count;
        v_deleted := v_deleted + v_rows;
        perform set_config('enable_indexscan', 'on', true);
    end loop;
    if v_deleted = 0 then
        delete from fastpubsub.purges as p where p.purge_key = v_purge.purge_key;
    end if;
    return v_deleted;
end;
$$;

-- functions/end_acked.sql
-- ack_messages_2 for a caller that has begun the call, and holds the cursor of an ordered subscription (p_ordered).
create or replace function fastpubsub.end_acked(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    p_now timestamptz,
    p_ordered boolean,
    out outcomes smallint [],
    out freed boolean
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
    freed := p_ordered
    and fastpubsub.free_keys(
        p_topic_key, p_subscription_key, v_taken.turns, coalesce(p_now, clock_timestamp()), v_taken.positions, v_taken.last_positions
    );
end;
$$;

-- functions/end_deliveries.sql
-- For a caller that holds the cursor: ends all leases and waiting retries of a subscription, and counts their messages. Old ack ids name
-- nothing any more.
create or replace function fastpubsub.end_deliveries(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint
) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_leased bigint;
    v_waiting bigint;
    v_parked bigint;
begin
    with ended as (
        delete from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        returning l.position, l.last_position
    )
    select coalesce(sum(e.last_position - e.position + 1), 0) into v_leased from ended as e;
    with ended as (
        delete from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        returning r.reason
    )
    select count(*) into v_waiting from ended as e where e.reason <> 'put aside';
    with ended as (
        delete from fastpubsub.parked as p where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key
        returning p.reason
    )
    select count(*) into v_parked from ended as e where e.reason <> 'put aside';
    delete from fastpubsub.busy_keys as b where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key;
    delete from fastpubsub.bundles as b where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key;
    return v_leased + v_waiting + v_parked;
end;
$$;

-- functions/end_leases.sql
-- For an ack of an ordered subscription, whose cursor the caller holds: ends deliveries as take_leases does, but without a look before at
-- whether they are whole. What is left of them is cut.
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

-- functions/end_whole_leases.sql
-- The usual case of an ack: few runs, of which each is one whole lease with its token. Ends these one after the other, up to the first run
-- that is something else, such as a part of a lease; `runs` are ended, and `outcomes` are those of their ids. The caller holds the cursor,
-- and leaves the other runs to take_leases. That locks leases by position, so this begins only when the runs are in order and apart.
create or replace function fastpubsub.end_whole_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_lengths integer [],
    out runs integer,
    out outcomes smallint []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    -- take_leases ends many in one statement.
    c_runs constant integer := 8;
    v_count integer := cardinality(p_positions);
    v_length integer;
    v_messages integer := 0;
begin
    runs := 0;
    if v_count > c_runs then
        return;
    end if;
    for i in 2..v_count loop
        if p_positions[i] < p_positions[i - 1] + coalesce(p_lengths[i - 1], 1) then
            return;
        end if;
    end loop;
    for i in 1..v_count loop
        v_length := coalesce(p_lengths[i], 1);
        delete from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = p_positions[i]
            and l.last_position = p_positions[i] + v_length - 1 and l.token = p_tokens[i] and not l.revived;
        exit when not found;
        runs := i;
        v_messages := v_messages + v_length;
    end loop;
    outcomes := array_fill(1::smallint, array[v_messages]);
end;
$$;

-- functions/explain_message_2.sql
-- What became of one message in one subscription, and why: `state` is ahead, leased, waiting, dead, settled, filtered, skipped, purged,
-- before_subscription, trimmed or unknown. Nothing is locked or written; stable, so that everything is seen at one moment. `expired_at`
-- is when the message expired, if it has, and `may_be_dropped` whether a settled one may be one that was too many. `before`: messages
-- that come first, at most p_look of them judged by the filter; `before_is_estimated` beyond. `failures`: failures_of. `held_by`: the
-- dead letter that holds the message's key, which may be itself. `reason` of one that was put aside: by what the subscription is shared.
create or replace function fastpubsub.explain_message_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_look integer default 10000,
    p_now timestamptz default null,
    out state text,
    out attempts integer,
    out consumer_id text,
    out until timestamptz,
    out died_at timestamptz,
    out reason text,
    out before bigint,
    out before_is_estimated boolean,
    out filter json,
    out field text,
    out expected json,
    out actual json,
    out actual_bytes integer,
    out similar_field text,
    out is_readable boolean,
    out sought_at timestamptz,
    out paused_at timestamptz,
    out leased_at timestamptz,
    out is_put_aside boolean,
    out at_limit integer,
    out at_rate_limit double precision,
    out failures json,
    out expired_at timestamptz,
    out held_by text,
    out may_be_dropped boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_past record;
    v_payload json;
    v_attributes jsonb;
    v_expired_at timestamptz;
    v_ordering_key text;
    v_turn bigint;
    v_created_at timestamptz;
begin
    select c.position, c.retry_due_at, c.retry_position, s.filter, u.filter_path, u.paused_at,
        u.ordered or u.fair_by is not null as puts_aside, u.fair_by, u.max_in_flight, u.rate_limit, c.full_at, c.dropped
    into v_cursor
    from fastpubsub.claims as c
    inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
    inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    filter := v_cursor.filter;
    failures := fastpubsub.failures_of(p_topic_key, p_subscription_key, p_position);
    -- A reprocessed dead letter does not expire.
    select m.expires_at into v_expired_at from fastpubsub.messages as m
    where
        m.topic_key = p_topic_key and m.position = p_position and m.expires_at <= coalesce(p_now, clock_timestamp())
        and not exists (
            select from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p_position
        );

    select 'leased', l.attempts, l.consumer_id, l.expires_at, l.leased_at
    into explain_message_2.state, explain_message_2.attempts, explain_message_2.consumer_id, explain_message_2.until, explain_message_2.leased_at
    from (
        select l.* from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position <= p_position and l.position > p_position - 100
        order by l.position desc limit 1
    ) as l
    where l.last_position >= p_position;
    if explain_message_2.state is not null then
        return;
    end if;
    select 'waiting', r.attempts, r.due_at, r.reason
    into explain_message_2.state, explain_message_2.attempts, explain_message_2.until, explain_message_2.reason
    from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = p_position
        and r.reason <> 'put aside';
    if v_cursor.puts_aside and explain_message_2.state is null then
        select 'waiting', p.attempts, p.due_at, p.reason
        into explain_message_2.state, explain_message_2.attempts, explain_message_2.until, explain_message_2.reason
        from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.position = p_position
            and p.reason <> 'put aside';
    end if;
    if explain_message_2.state is not null then
        expired_at := v_expired_at;
        paused_at := v_cursor.paused_at;
        at_limit := fastpubsub.limit_reached(p_topic_key, p_subscription_key, v_cursor.max_in_flight);
        at_rate_limit := fastpubsub.rate_reached(v_cursor.rate_limit, v_cursor.full_at, clock_timestamp());
        return;
    end if;
    select 'dead', d.attempts, d.died_at, d.reason, d.turn, d.created_at
    into
        explain_message_2.state, explain_message_2.attempts, explain_message_2.died_at, explain_message_2.reason, v_turn, v_created_at
    from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p_position;
    if explain_message_2.state is not null then
        if fastpubsub.is_holding(p_topic_key, p_subscription_key, p_position, v_turn) then
            held_by := fastpubsub.message_id(p_topic_key, p_position, v_created_at);
        end if;
        return;
    end if;

    select m.payload, m.attributes, m.ordering_key into v_payload, v_attributes, v_ordering_key
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    is_put_aside := v_cursor.puts_aside and p_position <= v_cursor.position
    and p_position in (select p from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p);
    if explain_message_2.is_put_aside then
        state := 'ahead';
        reason := v_cursor.fair_by;
        select fastpubsub.message_id(p_topic_key, r.position, m.created_at) into explain_message_2.held_by
        from fastpubsub.retries as r
        cross join lateral (
            select m.created_at, m.ordering_key from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = r.position
            limit 1
        ) as m
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity'
            and r.position < p_position and m.ordering_key = v_ordering_key
        limit 1;
    elsif p_position <= v_cursor.position then
        select h.* into v_past from fastpubsub.filter_history as h
        where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.from_position <= p_position
        order by h.from_position desc limit 1;
        filter := v_past.filter;
        sought_at := v_past.sought_at;
        state := case
            when v_past.state is null then 'before_subscription'
            when v_past.state in ('skipped', 'purged') then v_past.state
            when v_past.state = 'forgotten' then 'unknown'
            when v_payload is null and v_past.filter is not null then 'trimmed'
            else 'settled'
        end;
    else
        state := 'ahead';
    end if;
    if explain_message_2.state not in ('ahead', 'settled') then
        return;
    end if;
    select d.field, d.expected, d.actual, d.actual_bytes, d.similar_field, d.is_readable
    into
        explain_message_2.field, explain_message_2.expected, explain_message_2.actual, explain_message_2.actual_bytes,
        explain_message_2.similar_field, explain_message_2.is_readable
    from fastpubsub.deciding_field(v_payload, v_attributes, explain_message_2.filter, v_ordering_key) as d;
    if explain_message_2.field is not null or not explain_message_2.is_readable then
        state := 'filtered';
        is_put_aside := false;
        return;
    end if;
    expired_at := v_expired_at;
    may_be_dropped := explain_message_2.state = 'settled' and v_cursor.dropped > 0;
    if explain_message_2.state = 'ahead' then
        paused_at := v_cursor.paused_at;
        at_limit := fastpubsub.limit_reached(p_topic_key, p_subscription_key, v_cursor.max_in_flight);
        at_rate_limit := fastpubsub.rate_reached(v_cursor.rate_limit, v_cursor.full_at, clock_timestamp());
        select c.messages, c.is_estimated into explain_message_2.before, explain_message_2.before_is_estimated
        from fastpubsub.count_ahead(p_topic_key, v_cursor.position, p_position - 1, v_cursor.filter_path, p_look) as c
        where not explain_message_2.is_put_aside;
    end if;
end;
$$;

-- functions/fair_key.sql
-- Tells a key of a fair subscription by p_fair_by, 'ordering_key' or 'attributes.' and a name. Null for a message without one.
create or replace function fastpubsub.fair_key(p_fair_by text, p_ordering_key text, p_attributes jsonb) returns bigint
language sql immutable
as $$
    select hashtextextended(case when p_fair_by = 'ordering_key' then p_ordering_key else p_attributes ->> substr(p_fair_by, 12) end, 0)
$$;

-- functions/find_refused_message.sql
-- Returns the key of the refused message that was a delayed one, null when there is none.
create or replace function fastpubsub.find_refused_message(p_topic_key bigint, p_delayed_key bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
as $$
    select r.refused_key from fastpubsub.refused_messages as r
    where r.topic_key = p_topic_key and (r.topic_key, r.delayed_key) >= (p_topic_key, p_delayed_key) and r.delayed_key <= p_delayed_key
    -- With sorting off, only the index by these has this order.
    order by r.topic_key, r.delayed_key limit 1
$$;

-- functions/follow_busy.sql
-- For a claim of an ordered subscription, whose cursor passes something of a key that is busy: p_position, until now the last message of
-- the key that it has passed, no longer says so. The caller writes down which one does. Where a lease of lonely messages said it, there is
-- something behind one of them from now on.
create or replace function fastpubsub.follow_busy(p_topic_key bigint, p_subscription_key bigint, p_position bigint) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    delete from fastpubsub.busy_keys as b
    where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = p_position;
    if not found then
        update fastpubsub.leases as l set turn = 0
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position > p_position - 100 and l.position <= p_position and l.last_position >= p_position and l.turn = -1;
    end if;
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
-- more goes on: its first parked message waits, or the first one that was put aside is due, or the key is no longer busy. Returns whether
-- there is something new to claim. A turn of 0 stands for all messages from p_positions to p_last_positions, of which each is a turn.
-- One of -1 does, too, but behind none of them something was put aside, so they are not looked at.
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
set enable_hashjoin = off
set enable_mergejoin = off
set enable_memoize = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_message fastpubsub.parked;
    v_parked bigint [];
    v_parked_turns bigint [];
    v_next bigint [];
    v_next_turns bigint [];
    v_idle bigint [];
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select
        array_agg(t.turn) filter (where t.parked is not null),
        array_agg(t.parked) filter (where t.parked is not null),
        array_agg(t.turn) filter (where t.parked is null and t.next is not null),
        array_agg(t.next) filter (where t.parked is null and t.next is not null),
        array_agg(t.turn) filter (where t.parked is null and t.next is null)
    into v_parked_turns, v_parked, v_next_turns, v_next, v_idle
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
                    and k.position <= v_cursor.position
                order by k.position limit 1
            ) as k
        ) as n on true
        where
            (
                select l.turn from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= t.turn and l.turn <= t.turn
                    and l.turn <> l.last_position
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
    if 0 = any(p_turns) then
        select v_next || array_agg(k.position), v_next_turns || array_agg(m.position) into v_next, v_next_turns
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
                and k.position <= v_cursor.position
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
            p_topic_key, p_subscription_key, greatest(v_message.due_at, v_cursor.retry_due_at + interval '1 microsecond'),
            v_message.position, v_message.attempts, v_message.reason, v_message.turn
        );
    end loop;
    if v_next is not null then
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        select
            p_topic_key, p_subscription_key, greatest(p_now, v_cursor.retry_due_at + interval '1 microsecond'), u.position, 0,
            'put aside', u.turn
        from unnest(v_next, v_next_turns) as u (position, turn);
    end if;
    for i in 1..coalesce(cardinality(v_idle), 0) loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_idle[i];
    end loop;
    return v_parked is not null or v_next is not null;
end;
$$;

-- functions/inspect_delayed.sql
drop function fastpubsub.inspect_delayed;
-- Counts delayed messages of all topics: that wait (an estimate above p_limit), that are held (up to p_limit), and for how many seconds
-- the first one is overdue that nobody has published. For metrics and `fastpubsub doctor`; writes nothing.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
create or replace function fastpubsub.inspect_delayed(
    p_limit integer,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null,
    out waiting bigint,
    out held bigint,
    out overdue_seconds double precision
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
    v_head record;
    v_floor record;
    v_rows bigint;
    v_due_at timestamptz;
    v_oldest timestamptz;
begin
    if p_by_topic then
        waiting := 0;
        held := 0;
        for v_head in
            select h.topic_key, h.held_after, h.held_until from fastpubsub.heads as h
            where h.has_delayed and (p_topic_keys is null or h.topic_key = any(p_topic_keys))
        loop
            select f.due_at, f.delayed_key into v_floor from fastpubsub.fired_messages as f
            where f.topic_key = v_head.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1;
            continue when not found;
            select count(*), min(m.due_at) into v_rows, v_due_at from (
                select m.due_at from fastpubsub.delayed_messages as m
                where m.topic_key = v_head.topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                order by m.due_at, m.delayed_key
                limit p_limit + 1
            ) as m;
            waiting := inspect_delayed.waiting + v_rows;
            v_oldest := least(v_oldest, v_due_at);
            select count(*) into v_rows from (
                select m.due_at from fastpubsub.delayed_messages as m
                where m.topic_key = v_head.topic_key and m.due_at > v_head.held_after and m.due_at <= v_head.held_until
                order by m.due_at, m.delayed_key
                limit p_limit
            ) as m;
            held := inspect_delayed.held + v_rows;
        end loop;
    else
        select coalesce(sum(w.waiting), 0), coalesce(sum(w.held), 0), min(w.due_at)
        into inspect_delayed.waiting, inspect_delayed.held, v_oldest
        from fastpubsub.heads as h
        cross join lateral (
            select f.due_at, f.delayed_key from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f
        cross join lateral (
            select
                (
                    select count(*) from (
                        select from fastpubsub.delayed_messages as m
                        where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
                        order by m.due_at, m.delayed_key
                        limit p_limit + 1
                    ) as m
                ) as waiting,
                (
                    select count(*) from (
                        select from fastpubsub.delayed_messages as m
                        where m.topic_key = h.topic_key and m.due_at > h.held_after and m.due_at <= h.held_until
                        order by m.due_at, m.delayed_key
                        limit p_limit
                    ) as m
                ) as held,
                (
                    select min(m.due_at) from fastpubsub.delayed_messages as m
                    where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
                ) as due_at
        ) as w
        where h.has_delayed;
    end if;
    overdue_seconds := greatest(coalesce(extract(epoch from v_now - v_oldest), 0), 0);
    if waiting > p_limit then
        select greatest(c.reltuples::bigint - inspect_delayed.held, inspect_delayed.waiting) into inspect_delayed.waiting
        from pg_class as c where c.oid = 'fastpubsub.delayed_messages'::regclass;
    end if;
end;
$$;

-- functions/inspect_schedules.sql
drop function fastpubsub.inspect_schedules;
-- Counts the schedules of all topics: that fire, that are paused, and whose last time could not be published; and for how many seconds the
-- first one is overdue. For metrics and `fastpubsub doctor`; writes nothing. p_topic_keys, when not null, holds the only
-- topics whose nodes answer.
create or replace function fastpubsub.inspect_schedules(
    p_now timestamptz default null,
    p_topic_keys bigint [] default null,
    out active bigint,
    out paused bigint,
    out failing bigint,
    out overdue_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select
        count(*) filter (where s.next_at is not null), count(*) filter (where s.next_at is null), count(s.problem),
        greatest(coalesce(extract(epoch from coalesce(p_now, clock_timestamp()) - min(s.next_at)), 0), 0)
    into
        inspect_schedules.active, inspect_schedules.paused, inspect_schedules.failing, inspect_schedules.overdue_seconds
    from fastpubsub.schedules as s
    where (p_topic_keys is null or s.topic_key = any(p_topic_keys));
end;
$$;

-- functions/is_holding.sql
-- Whether the dead letter of a position, which says p_turn, holds its key: nothing of that key comes before somebody
-- reprocesses or purges the dead letter.
create or replace function fastpubsub.is_holding(p_topic_key bigint, p_subscription_key bigint, p_position bigint, p_turn bigint)
returns boolean
language plpgsql stable
as $$
begin
    if p_turn is null then
        return false;
    end if;
    if exists (
        select from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity'
            and r.position = p_position
    ) then
        return true;
    end if;
    return exists (
        select from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
            and p.position = p_position and p.due_at = 'infinity'
    );
end;
$$;

-- functions/judge_stretch.sql
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

-- functions/lease_runs.sql
-- Cuts claimed messages into leases: each has at most 100 consecutive positions, one consumer and one number of attempts. p_ends says how
-- many messages the first consumer gets, the first two together, and so on.
create or replace function fastpubsub.lease_runs(
    p_positions bigint [],
    p_attempts integer [],
    p_revived boolean [],
    p_ends bigint []
) returns table (first_position bigint, last_position bigint, attempts integer, revived boolean, consumer integer)
language plpgsql immutable
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_count bigint := cardinality(p_positions);
begin
    -- The usual case: a stretch of the log.
    if
        p_positions[v_count] - p_positions[1] = v_count - 1 and p_attempts = array_fill(1, array[v_count::integer])
        and not true = any(p_revived)
        -- Returned messages come first, and in another order.
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
    then
        return query
        select
            p_positions[1] + f, p_positions[1] + least(f + 99, e.ends - 1, v_count - 1), 1, false, e.consumer::integer
        from unnest(p_ends) with ordinality as e (ends, consumer)
        cross join lateral generate_series(coalesce(p_ends[e.consumer - 1], 0), least(e.ends, v_count) - 1, 100) as f;
        return;
    end if;
    return query
    select min(r.position), max(r.position), r.attempts, r.revived, r.consumer
    from (
        select
            m.position, m.attempts, m.revived, m.consumer,
            m.position - row_number() over (partition by m.consumer, m.attempts, m.revived order by m.position) as island
        from (
            select u.position, u.attempts, u.revived, 1 + width_bucket(u.ordinal - 1, p_ends) as consumer
            from unnest(p_positions, p_attempts, p_revived) with ordinality as u (position, attempts, revived, ordinal)
        ) as m
    ) as r
    group by r.consumer, r.attempts, r.revived, r.island, r.position / 100;
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
begin
    -- A stretch of the log, of a single turn or of messages that are alone with their key.
    if
        p_retried = 0 and p_positions[v_count] - p_positions[1] = v_count - 1 and p_turns[1] = all(p_turns) and 1 = all(p_attempts)
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
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

-- functions/list_changes.sql
-- Newest first: those of an object, of a client, of an id or of a kind of objects by their keys, others by their times.
-- p_before_key is that of the last one of the page before.
create or replace function fastpubsub.list_changes(
    p_object text,
    p_object_id text,
    p_client_id text,
    p_after timestamptz,
    p_before timestamptz,
    p_before_key bigint,
    p_limit integer
) returns table (
    change_key bigint,
    changed_at timestamptz,
    client_id text,
    request_id text,
    action text,
    object text,
    object_id text,
    body json
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_before timestamptz := 'infinity';
begin
    if p_object is not null and p_object_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            (c.object, c.object_id) >= (p_object, p_object_id)
            and (c.object, c.object_id, c.change_key) < (p_object, p_object_id, coalesce(p_before_key, 9223372036854775807))
            and (p_client_id is null or c.client_id = p_client_id)
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        -- With sorting off, only the index by object has this order.
        order by c.object desc, c.object_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_client_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.client_id >= p_client_id
            and (c.client_id, c.change_key) < (p_client_id, coalesce(p_before_key, 9223372036854775807))
            and (p_object is null or c.object = p_object)
            and (p_object_id is null or c.object_id = p_object_id)
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.client_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_object_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.object_id >= p_object_id
            and (c.object_id, c.change_key) < (p_object_id, coalesce(p_before_key, 9223372036854775807))
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.object_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_object is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.object >= p_object
            and (c.object, c.change_key) < (p_object, coalesce(p_before_key, 9223372036854775807))
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.object desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_before_key is not null then
        select c.changed_at into v_before from fastpubsub.changes as c where c.change_key = p_before_key;
    end if;
    return query
    select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
    from fastpubsub.changes as c
    where
        (c.changed_at, c.change_key) < (v_before, coalesce(p_before_key, 9223372036854775807))
        and c.changed_at >= coalesce(p_after, '-infinity')
        and c.changed_at < coalesce(p_before, 'infinity')
    order by c.changed_at desc, c.change_key desc
    limit p_limit;
end;
$$;

-- functions/list_due_schedules.sql
drop function fastpubsub.list_due_schedules;
-- Lists up to p_limit schedules that are due, the longest overdue first, with what is needed to reckon when they fire next. Looks back
-- p_look_back_seconds, null for any time: a row that moves on leaves its old place in the index behind, as long as anybody may see it.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_due_schedules(
    p_limit integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (
    topic_key bigint,
    topic_id text,
    id text,
    revision bigint,
    payload json,
    cron text,
    time_zone text,
    interval_seconds integer,
    catch_up text,
    next_at timestamptz,
    looked_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from timestamptz := coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity');
begin
    return query
    select
        s.topic_key, t.id, s.id, s.revision, s.payload, s.cron, s.time_zone, s.interval_seconds, s.catch_up, s.next_at, v_now
    from fastpubsub.schedules as s
    inner join fastpubsub.topics as t on t.topic_key = s.topic_key
    where s.next_at >= v_from and s.next_at <= v_now and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    order by s.next_at
    limit p_limit;
end;
$$;

-- functions/list_due_topics.sql
drop function fastpubsub.list_due_topics;
-- Lists the topics that have due messages, or whose floor is older than p_mark_seconds, and says in how many seconds the next message
-- of any topic is due, and the next schedule among those that were due p_look_back_seconds ago at most. Writes nothing.
-- p_topic_keys: of these topics only, one after the other, for topics on several nodes.
create or replace function fastpubsub.list_due_topics(
    p_mark_seconds integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null,
    out topic_keys bigint [],
    out due_seconds double precision,
    out schedule_seconds double precision
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
    v_topic_key bigint;
    v_floor record;
    v_due_at timestamptz;
    v_next timestamptz;
begin
    if p_topic_keys is null then
        select
            array_agg(h.topic_key) filter (where d.due_at <= v_now or f.created_at <= v_now - make_interval(secs => p_mark_seconds)),
            min(d.due_at)
        into list_due_topics.topic_keys, v_next
        from fastpubsub.heads as h
        cross join lateral (
            select f.due_at, f.delayed_key, f.created_at from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f
        left join lateral (
            select m.due_at from fastpubsub.delayed_messages as m
            where m.topic_key = h.topic_key and (m.due_at, m.delayed_key) > (f.due_at, f.delayed_key)
            order by m.due_at, m.delayed_key
            limit 1
        ) as d on true
        where h.has_delayed;
    else
        for v_topic_key in
            select h.topic_key from fastpubsub.heads as h
            where h.has_delayed and h.topic_key = any(p_topic_keys)
        loop
            select f.due_at, f.delayed_key, f.created_at into v_floor from fastpubsub.fired_messages as f
            where f.topic_key = v_topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1;
            continue when not found;
            select m.due_at into v_due_at from fastpubsub.delayed_messages as m
            where m.topic_key = v_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
            order by m.due_at, m.delayed_key
            limit 1;
            if v_due_at <= v_now or v_floor.created_at <= v_now - make_interval(secs => p_mark_seconds) then
                topic_keys := list_due_topics.topic_keys || v_topic_key;
            end if;
            v_next := least(v_next, v_due_at);
        end loop;
    end if;
    due_seconds := extract(epoch from v_next - v_now);
    select extract(epoch from s.next_at - v_now) into list_due_topics.schedule_seconds
    from fastpubsub.schedules as s
    where
        s.next_at >= coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity')
        and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    order by s.next_at
    limit 1;
end;
$$;

-- functions/list_expired_leases.sql
drop function fastpubsub.list_expired_leases;
-- Lists the subscriptions with leases past their deadline, and how many messages those leases hold. Deadlines more than p_look_back_seconds
-- ago are left to earlier passes (null: none are), so that a pass does not walk over rows that others deleted.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_expired_leases(
    p_look_back_seconds double precision default null,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (topic_key bigint, subscription_key bigint, subscription_id text, expired bigint)
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
    v_floor timestamptz := coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity');
begin
    return query
    select e.topic_key, e.subscription_key, s.id, e.expired
    from (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as expired
        from (
            select l.* from fastpubsub.leases as l
            where l.expires_at > v_floor and l.expires_at <= v_now and (p_topic_keys is null or l.topic_key = any(p_topic_keys))
            -- With sorting off, only the index by time has this order.
            order by l.expires_at
            offset 0
        ) as l
        group by l.topic_key, l.subscription_key
    ) as e
    inner join fastpubsub.subscriptions as s on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key;
end;
$$;

-- functions/list_expired_subscriptions.sql
drop function fastpubsub.list_expired_subscriptions;
-- Lists up to p_limit subscriptions that nobody has used for as long as their setting says, for expire_subscription. One that is paused or
-- pushed, or whose messages a consumer holds, counts as used; and the time in which no server called this does not count.
-- p_topic_keys, when not null, holds the only topics whose nodes answer: for the others, the time since the call before does not count.
create or replace function fastpubsub.list_expired_subscriptions(
    p_limit integer default 100,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
)
returns table (topic_key bigint, subscription_key bigint, subscription_id text, expire_after_seconds integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_done_at timestamptz;
    v_unserved interval;
    v_use record;
    v_cursor fastpubsub.cursors;
    v_is_used boolean;
    v_listed integer := 0;
begin
    if not exists (select from fastpubsub.subscription_uses) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    if not fastpubsub.lock_job('expire_subscriptions', false) then
        return;
    end if;
    select j.done_at into v_done_at from fastpubsub.jobs as j where j.name = 'expire_subscriptions';
    update fastpubsub.jobs as j set done_at = v_now where j.name = 'expire_subscriptions';
    v_unserved := case when v_now > v_done_at + interval '5 minutes' then v_now - v_done_at end;
    for v_use in
        select u.topic_key, u.subscription_key, least(u.used_at + coalesce(v_unserved, '0'), v_now) as used_at
        from fastpubsub.subscription_uses as u
        order by u.used_at
    loop
        if v_unserved is not null then
            -- Unless it was used or changed since the loop began.
            update fastpubsub.subscription_uses as u set used_at = greatest(u.used_at, v_use.used_at)
            where u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
        end if;
        if v_use.topic_key <> all(p_topic_keys) then
            update fastpubsub.subscription_uses as u set used_at = least(u.used_at + (v_now - v_done_at), v_now)
            where v_unserved is null and u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
            continue;
        end if;
        select c.* into v_cursor from fastpubsub.cursors as c
        where c.topic_key = v_use.topic_key and c.subscription_key = v_use.subscription_key;
        continue when fastpubsub.expires_at(v_use.used_at, v_cursor.expire_after_seconds) <= v_now is not true;
        v_is_used := v_cursor.paused_at is not null or v_cursor.is_pushed is true;
        if not v_is_used then
            perform 1 from fastpubsub.leases as l
            where l.topic_key = v_use.topic_key and l.subscription_key = v_use.subscription_key
            limit 1;
            v_is_used := found;
        end if;
        if v_is_used then
            update fastpubsub.subscription_uses as u set used_at = greatest(u.used_at, v_now)
            where u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
            continue;
        end if;
        select s.id into list_expired_subscriptions.subscription_id from fastpubsub.subscriptions as s
        where s.subscription_key = v_use.subscription_key;
        continue when not found or v_listed >= p_limit;
        v_listed := v_listed + 1;
        topic_key := v_use.topic_key;
        subscription_key := v_use.subscription_key;
        expire_after_seconds := v_cursor.expire_after_seconds;
        return next;
    end loop;
end;
$$;

-- functions/list_full_subscriptions.sql
drop function fastpubsub.list_full_subscriptions;
-- Lists the subscriptions that have more messages before them than they may, and do not reject them, for drop_backlog.
-- p_topic_keys: of these topics only, one after the other, for topics on several nodes.
create or replace function fastpubsub.list_full_subscriptions(p_topic_keys bigint [] default null)
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_position bigint;
    v_last bigint;
begin
    if p_topic_keys is null then
        return query
        select c.topic_key, c.subscription_key, s.id
        from fastpubsub.cursors as c
        inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
        cross join lateral (
            select k.position from fastpubsub.claims as k
            where k.topic_key = c.topic_key and k.subscription_key = c.subscription_key
            order by k.sequence desc limit 1
        ) as k
        cross join lateral (
            select m.position from fastpubsub.messages as m where m.topic_key = c.topic_key order by m.position desc limit 1
        ) as m
        where c.max_backlog is not null and c.on_full <> 'reject' and m.position - k.position > c.max_backlog;
        return;
    end if;
    for v_cursor in
        select c.topic_key, c.subscription_key, c.max_backlog from fastpubsub.cursors as c
        where c.topic_key = any(p_topic_keys) and c.max_backlog is not null and c.on_full <> 'reject'
    loop
        select k.position into v_position from fastpubsub.claims as k
        where k.topic_key = v_cursor.topic_key and k.subscription_key = v_cursor.subscription_key
        order by k.sequence desc limit 1;
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_cursor.topic_key
        order by m.position desc limit 1;
        continue when v_last - v_position > v_cursor.max_backlog is not true;
        select s.topic_key, s.subscription_key, s.id
        into list_full_subscriptions.topic_key, list_full_subscriptions.subscription_key, list_full_subscriptions.subscription_id
        from fastpubsub.subscriptions as s
        where s.subscription_key = v_cursor.subscription_key;
        if found then
            return next;
        end if;
    end loop;
end;
$$;

-- functions/list_kept_messages.sql
-- Lists the subscriptions that keep the log of their topic from being deleted: the oldest message that each still needs (because it is
-- unread, leased or waiting), how many messages the topic has from there on, and how long the topic keeps messages that no subscription
-- needs (null: the default of the server). The worst comes first. For `fastpubsub doctor` and for people; writes nothing.
create or replace function fastpubsub.list_kept_messages(p_limit integer)
returns table (topic_id text, subscription_id text, kept bigint, since timestamptz, retention_seconds bigint)
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
    v_subscription record;
    v_topic_keys bigint [] := '{}';
    v_keys bigint [] := '{}';
    v_positions bigint [] := '{}';
    v_kept bigint [] := '{}';
    v_first bigint;
    v_last bigint;
    v_position bigint;
begin
    for v_subscription in
        select s.topic_key, s.subscription_key from fastpubsub.subscriptions as s
    loop
        -- As last_position does, without a call.
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_subscription.topic_key
        order by m.position desc
        limit 1;
        continue when not found;
        -- A leased or waiting message below it is a reprocessed dead letter with a copy of its own.
        v_first := fastpubsub.first_position(v_subscription.topic_key, v_last);
        select
            least(
                c.position + 1,
                (
                    select min(l.position) from fastpubsub.leases as l
                    where
                        l.topic_key = v_subscription.topic_key and l.subscription_key = v_subscription.subscription_key
                        and l.position >= v_first
                ),
                (
                    select min(r.position) from fastpubsub.retries as r
                    where
                        r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
                        and r.position >= v_first
                )
            )
        into v_position
        from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc
        limit 1;
        -- Positions are dense.
        continue when v_position between v_first and v_last is not true;
        v_topic_keys := v_topic_keys || v_subscription.topic_key;
        v_keys := v_keys || v_subscription.subscription_key;
        v_positions := v_positions || v_position;
        v_kept := v_kept || (v_last - v_position + 1);
    end loop;
    for v_subscription in
        select u.topic_key, u.position, u.kept, s.id, t.id as topic_id
        from (
            select u.topic_key, u.subscription_key, u.position, u.kept
            from unnest(v_topic_keys, v_keys, v_positions, v_kept) as u (topic_key, subscription_key, position, kept)
            order by u.kept desc
            limit p_limit
        ) as u
        inner join fastpubsub.subscriptions as s on u.subscription_key = s.subscription_key
        inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        order by u.kept desc
    loop
        select m.created_at, h.retention_seconds into list_kept_messages.since, list_kept_messages.retention_seconds
        from fastpubsub.messages as m
        inner join fastpubsub.heads as h on m.topic_key = h.topic_key
        where
            m.topic_key = v_subscription.topic_key and m.position = v_subscription.position
            and h.topic_key = v_subscription.topic_key;
        continue when not found;
        topic_id := v_subscription.topic_id;
        subscription_id := v_subscription.id;
        kept := v_subscription.kept;
        return next;
    end loop;
end;
$$;

-- functions/list_loads_2.sql
drop function fastpubsub.list_loads_2;
-- Returns the subscriptions in which something is ahead, leased, waiting or dead, or which are paused, all at once instead of one by one:
-- for looking at the whole server. `behind` is what the log has after the cursor, which for a filter is more than what it passes. p_ids
-- holds the only ids that the caller may see, null for all. The times are those of the oldest message of each state, as far as the log has
-- it, and of the first lease that expires; `retention_seconds` is how long the topic keeps what nobody needs.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; p_topic_keys, when not null, holds the only topics
-- whose nodes answer. Without, all in one statement, with less work.
create or replace function fastpubsub.list_loads_2(
    p_ids text [],
    p_retention_seconds bigint,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
)
returns table (
    topic_id text,
    subscription_id text,
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
    v_topic record;
begin
    if p_by_topic then
        for v_topic in
            select t.topic_key, t.id, array_agg(s.subscription_key) as subscription_keys, array_agg(s.id) as ids
            from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
            where (p_ids is null or s.id = any(p_ids)) and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
            group by t.topic_key, t.id
        loop
            return query
            select
                v_topic.id, n.id, l.is_filtered, l.behind, l.leased, l.waiting, l.dead, l.next_created_at, l.leased_created_at,
                l.waiting_created_at, l.died_at, l.retention_seconds, l.paused_at, l.first_expires_at, l.max_in_flight, l.at_rate_limit
            from fastpubsub.loads_of_topic(v_topic.topic_key, p_retention_seconds) as l
            inner join unnest(v_topic.subscription_keys, v_topic.ids) as n (subscription_key, id)
                on l.subscription_key = n.subscription_key;
        end loop;
        return;
    end if;
    return query
    with
    leased as (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as messages, min(l.position) as first,
            min(l.expires_at) as expires_at
        from fastpubsub.leases as l group by l.topic_key, l.subscription_key
    ),
    waiting as (
        select r.topic_key, r.subscription_key, count(*) as messages, min(r.position) as first
        from fastpubsub.retries as r where r.reason <> 'put aside' group by r.topic_key, r.subscription_key
    ),
    dead as (
        select d.topic_key, d.subscription_key, count(*) as messages, min(d.position) as first
        from fastpubsub.dead_letters as d group by d.topic_key, d.subscription_key
    ),
    tops as (
        select t.topic_key, t.id, coalesce(h.retention_seconds, p_retention_seconds) as retention, l.position
        from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
        cross join lateral fastpubsub.last_position(t.topic_key) as l (position)
    )
    select
        t.id, s.id, c.filter_path is not null, greatest(t.position - n.position, 0), coalesce(l.messages, 0), coalesce(w.messages, 0),
        coalesce(d.messages, 0),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = n.position + 1),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = l.first),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = s.topic_key and m.position = w.first),
        (
            select e.died_at from fastpubsub.dead_letters as e
            where e.topic_key = s.topic_key and e.subscription_key = s.subscription_key and e.position = d.first
        ),
        t.retention, c.paused_at, l.expires_at, c.max_in_flight,
        fastpubsub.rate_reached(c.rate_limit, n.full_at, clock_timestamp())
    from fastpubsub.subscriptions as s
    inner join tops as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    cross join lateral (
        select n.position, n.full_at from fastpubsub.claims as n
        where n.topic_key = s.topic_key and n.subscription_key = s.subscription_key
        order by n.sequence desc limit 1
    ) as n
    left join leased as l on s.topic_key = l.topic_key and s.subscription_key = l.subscription_key
    left join waiting as w on s.topic_key = w.topic_key and s.subscription_key = w.subscription_key
    left join dead as d on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
    where
        (p_ids is null or s.id = any(p_ids))
        and (t.position > n.position or l.messages > 0 or w.messages > 0 or d.messages > 0 or c.paused_at is not null);
end;
$$;

-- functions/list_ready_of_topic.sql
-- As list_ready_subscriptions_2, of subscriptions of one topic.
create or replace function fastpubsub.list_ready_of_topic(
    p_topic_key bigint,
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns table (place integer, ready boolean, due_seconds double precision, paused boolean, room integer)
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
    v_key bigint;
    v_cursor fastpubsub.cursors;
    v_claim fastpubsub.claims;
    v_limit record;
begin
    place := 0;
    foreach v_key in array p_subscription_keys loop
        place := list_ready_of_topic.place + 1;
        select c.* into v_cursor from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = v_key;
        paused := coalesce(v_cursor.paused_at is not null, false);
        select c.* into v_claim from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_key
        order by c.sequence desc
        limit 1;
        ready := v_cursor.topic_key is null or v_claim.position is null;
        if not list_ready_of_topic.ready then
            perform 1 from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_claim.position + 1;
            ready := found;
        end if;
        if not list_ready_of_topic.ready then
            perform 1 from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = v_key
                and (r.due_at, r.position) > (v_claim.retry_due_at, v_claim.retry_position) and r.due_at <= v_now
            limit 1;
            ready := found;
        end if;
        select extract(epoch from r.due_at - v_now)::double precision into list_ready_of_topic.due_seconds
        from fastpubsub.retries as r
        where r.topic_key = p_topic_key and r.subscription_key = v_key and r.due_at > v_now and r.due_at < 'infinity'
        order by r.due_at, r.position
        limit 1;
        room := null;
        if list_ready_of_topic.ready and (v_cursor.max_in_flight is not null or v_cursor.rate_limit is not null) then
            v_limit := fastpubsub.room_to_claim(p_topic_key, v_key, v_cursor.max_in_flight, v_cursor.rate_limit, v_now);
            room := v_limit.room;
            due_seconds := case when v_limit.room = 0 then v_limit.seconds else list_ready_of_topic.due_seconds end;
        end if;
        due_seconds := case when not list_ready_of_topic.paused then list_ready_of_topic.due_seconds end;
        ready := list_ready_of_topic.ready and not list_ready_of_topic.paused and list_ready_of_topic.room is distinct from 0;
        continue when not (list_ready_of_topic.ready or list_ready_of_topic.paused or list_ready_of_topic.due_seconds is not null);
        return next;
    end loop;
end;
$$;

-- functions/list_refused_messages.sql
-- Lists what is refused of a topic in the order in which that happened, after p_after, up to p_limit and p_max_bytes
-- (at least one); with p_keys only those. `looked_at` is how many there would be without p_max_bytes.
create or replace function fastpubsub.list_refused_messages(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_keys bigint [] default null,
    out refused_key bigint,
    out refused_at timestamptz,
    out reason text,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out deliver_at timestamptz,
    out delayed_key bigint,
    out ttl_seconds integer,
    out expires_at timestamptz,
    out looked_at bigint
) returns setof record
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    return query
    select
        r.refused_key, r.refused_at, r.reason, r.payload, r.attributes, r.ordering_key, r.deliver_at, r.delayed_key,
        r.ttl_seconds, r.expires_at, r.looked_at
    from (
        select
            m.*, count(*) over () as looked_at,
            sum(pg_column_size(m.payload)) over (order by m.refused_key) - pg_column_size(m.payload) as bytes_before
        from (
            (
                select m.* from fastpubsub.refused_messages as m
                where p_keys is null and m.topic_key = p_topic_key and m.refused_key > coalesce(p_after, 0)
                order by m.refused_key
                limit p_limit
            )
            union all
            (
                select m.*
                from (select distinct k from unnest(p_keys) as k) as u (refused_key)
                cross join lateral (
                    select m.* from fastpubsub.refused_messages as m
                    where m.topic_key = p_topic_key and m.refused_key = u.refused_key
                    limit 1
                ) as m
            )
        ) as m
    ) as r
    where r.bytes_before < p_max_bytes
    order by r.refused_key;
end;
$$;

-- functions/list_rhythms.sql
drop function fastpubsub.list_rhythms;
-- Returns of topics that were silent for p_seconds, but published within the last day, and of the named subscriptions that were silent for
-- p_consumer_seconds, in how many minutes of that day something was published, or delivered; the time from the first to the last of them,
-- and the longest pause in it; and since when nothing was. At most p_limit topics, those that fell silent last.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_rhythms(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_seconds integer default 600,
    p_limit integer default 100,
    p_consumer_seconds integer default 300,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
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
    if p_by_topic then
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

-- functions/list_running_redrives.sql
drop function fastpubsub.list_running_redrives;
create or replace function fastpubsub.list_running_redrives(p_topic_keys bigint [] default null) returns table (
    topic_key bigint,
    subscription_key bigint,
    redrive_key bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    return query
    select r.topic_key, r.subscription_key, r.redrive_key
    from fastpubsub.redrives as r
    inner join fastpubsub.subscriptions as s on s.subscription_key = r.subscription_key
    where r.state = 'running' and (p_topic_keys is null or r.topic_key = any(p_topic_keys))
    order by r.redrive_key;
end;
$$;

-- functions/list_stranded_retries.sql
drop function fastpubsub.list_stranded_retries;
-- Lists the subscriptions with a waiting message at or below the floor of the retries, where no claim would find it. Expected: none.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_stranded_retries(p_topic_keys bigint [] default null)
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_subscription record;
    v_cursor fastpubsub.claims;
begin
    for v_subscription in
        select s.topic_key, s.subscription_key, s.id from fastpubsub.subscriptions as s
        where (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    loop
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        if
            exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
                    and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position)
            )
        then
            topic_key := v_subscription.topic_key;
            subscription_key := v_subscription.subscription_key;
            subscription_id := v_subscription.id;
            return next;
        end if;
    end loop;
end;
$$;

-- functions/list_subscription_metrics_2.sql
drop function fastpubsub.list_subscription_metrics_2;
-- Returns the metrics of up to p_limit subscriptions for one scrape, and what each keeps of its topic beyond the retention. The caller
-- passes back, in arrays, the `judged_…` values of the call before, so that no message is judged twice. All searches together take at most
-- p_milliseconds, each at most half of the time left. p_topic_keys, when not null, holds the only topics whose nodes
-- answer.
create or replace function fastpubsub.list_subscription_metrics_2(
    p_limit integer,
    p_retention_seconds bigint,
    p_subscription_keys bigint [] default '{}',
    p_judged_filters bigint [] default '{}',
    p_judged_from bigint [] default '{}',
    p_judged_to bigint [] default '{}',
    p_milliseconds integer default 200,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (
    subscription_key bigint,
    subscription_id text,
    topic_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    oldest_created_at timestamptz,
    oldest_leased_created_at timestamptz,
    oldest_waiting_created_at timestamptz,
    unjudged bigint,
    judged_filter bigint,
    judged_from bigint,
    judged_to bigint,
    kept_state text,
    kept_bytes bigint,
    paused boolean,
    held_keys bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_subscription record;
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
begin
    for v_subscription in
        select s.id, t.id as topic_id, s.topic_key, s.subscription_key, array_position(p_subscription_keys, s.subscription_key) as place
        from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        where (p_topic_keys is null or s.topic_key = any(p_topic_keys))
        order by s.subscription_key
        limit p_limit
    loop
        return query
        select
            v_subscription.subscription_key, v_subscription.id, v_subscription.topic_id, m.ahead, m.waiting, m.leased, m.dead, m.acked,
            m.oldest_created_at, m.oldest_leased_created_at, m.oldest_waiting_created_at, m.unjudged, m.judged_filter, m.judged_from,
            m.judged_to, k.state, k.bytes, m.paused, m.held_keys
        from
            fastpubsub.subscription_metrics_2(
                v_subscription.topic_key, v_subscription.subscription_key, 1000,
                (500 * extract(epoch from v_until - clock_timestamp()))::integer,
                p_judged_filters[v_subscription.place], p_judged_from[v_subscription.place], p_judged_to[v_subscription.place]
            ) as m
        cross join lateral fastpubsub.kept_log(
            v_subscription.topic_key, m.cursor_position + 1, m.leased_position, m.waiting_position, p_retention_seconds, p_now
        ) as k;
    end loop;
end;
$$;

-- functions/list_subscriptions_3.sql
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter;
-- p_by_topic looks for them in one topic after the other, as topics on several nodes need it; without, in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_subscriptions_3(
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
    fair_by text
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
        c.on_expired, c.on_dead_letter, c.max_backlog, c.on_full, c.fair_by
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

-- functions/list_topics.sql
drop function fastpubsub.list_topics;
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_part is a part of the id,
-- without case; p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_topics(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_part text default null,
    p_after text default null,
    p_topic_keys bigint [] default null
)
returns table (id text, retention_seconds bigint, created_at timestamptz, schema json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_keys bigint [];
    v_ids text [];
    v_times timestamptz [];
begin
    select array_agg(n.topic_key), array_agg(n.id), array_agg(n.created_at) into v_topic_keys, v_ids, v_times
    from (
        select t.topic_key, t.id, t.created_at from fastpubsub.topics as t
        where
            (p_ids is null or t.id = any(p_ids)) and (p_part is null or strpos(lower(t.id), lower(p_part)) > 0)
            and (p_after is null or t.id collate "C" > p_after)
            and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
        order by t.id collate "C"
        offset p_offset
        limit p_limit
    ) as n;
    -- Or where topics are on several nodes, all of them were asked.
    if v_topic_keys is null then
        return;
    end if;
    return query
    select n.id, h.retention_seconds, n.created_at, h.schema
    from unnest(v_topic_keys, v_ids, v_times) as n (topic_key, id, created_at)
    inner join fastpubsub.heads as h on n.topic_key = h.topic_key
    -- Where topics are on several nodes, only those of these topics are asked.
    where h.topic_key = any(v_topic_keys)
    order by n.id collate "C";
end;
$$;

-- functions/list_trimmable.sql
drop function fastpubsub.list_trimmable;
-- Lists the topics where trim_messages has work: messages past the retention, or claims, idempotency keys and places of delayed
-- messages that are no longer needed. p_topic_keys: of these topics only.
create or replace function fastpubsub.list_trimmable(
    p_retention_seconds bigint,
    p_window_seconds integer,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (topic_key bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_head record;
    v_last bigint;
    v_first bigint;
    v_is_trimmable boolean;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    for v_head in
        select h.topic_key, coalesce(h.retention_seconds, p_retention_seconds) as retention from fastpubsub.heads as h
        where (p_topic_keys is null or h.topic_key = any(p_topic_keys))
    loop
        -- As last_position does, without a call.
        select m.position into v_last from fastpubsub.messages as m
        where m.topic_key = v_head.topic_key
        order by m.position desc
        limit 1;
        v_last := coalesce(v_last, 0);
        v_first := fastpubsub.first_position(v_head.topic_key, v_last);
        perform 1 from fastpubsub.messages as m
        where
            m.topic_key = v_head.topic_key and m.position = v_first and m.position < v_last
            and m.created_at < v_now - make_interval(secs => v_head.retention);
        v_is_trimmable := found;
        if not v_is_trimmable then
            select k.created_at < v_now - make_interval(secs => p_window_seconds) into v_is_trimmable from fastpubsub.idempotency_keys as k
            where k.topic_key = v_head.topic_key
            order by k.created_at
            limit 1;
        end if;
        if v_is_trimmable is not true then
            select f.created_at < v_now - make_interval(secs => p_window_seconds) into v_is_trimmable from fastpubsub.fired_messages as f
            where
                f.topic_key = v_head.topic_key and f.position is not null
                and f.due_at < v_now - make_interval(secs => p_window_seconds)
            order by f.due_at, f.delayed_key
            limit 1;
        end if;
        if v_is_trimmable is not true then
            perform 1 from fastpubsub.cursors as c
            cross join lateral (
                select n.sequence from fastpubsub.claims as n
                where n.topic_key = v_head.topic_key and n.subscription_key = c.subscription_key
                order by n.sequence desc limit 1
            ) as n
            cross join lateral (
                select o.sequence from fastpubsub.claims as o
                where o.topic_key = v_head.topic_key and o.subscription_key = c.subscription_key and o.sequence = n.sequence - 1
                limit 1
            ) as o
            where c.topic_key = v_head.topic_key
            limit 1;
            v_is_trimmable := found;
        end if;
        if v_is_trimmable then
            topic_key := v_head.topic_key;
            return next;
        end if;
    end loop;
end;
$$;

-- functions/loads_of_topic.sql
-- As list_loads_2, of all subscriptions of a topic, by their keys.
create or replace function fastpubsub.loads_of_topic(p_topic_key bigint, p_retention_seconds bigint)
returns table (
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
    v_last bigint := fastpubsub.last_position(p_topic_key);
    v_now timestamptz := clock_timestamp();
begin
    return query
    with
    leased as (
        select l.subscription_key, sum(l.last_position - l.position + 1)::bigint as messages, min(l.position) as first,
            min(l.expires_at) as expires_at
        from fastpubsub.leases as l where l.topic_key = p_topic_key group by l.subscription_key
    ),
    waiting as (
        select r.subscription_key, count(*) as messages, min(r.position) as first
        from fastpubsub.retries as r where r.topic_key = p_topic_key and r.reason <> 'put aside' group by r.subscription_key
    ),
    dead as (
        select d.subscription_key, count(*) as messages, min(d.position) as first
        from fastpubsub.dead_letters as d where d.topic_key = p_topic_key group by d.subscription_key
    )
    select
        c.subscription_key, c.filter_path is not null, greatest(v_last - n.position, 0), coalesce(l.messages, 0),
        coalesce(w.messages, 0), coalesce(d.messages, 0),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = n.position + 1),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = l.first),
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = w.first),
        (
            select e.died_at from fastpubsub.dead_letters as e
            where e.topic_key = p_topic_key and e.subscription_key = c.subscription_key and e.position = d.first
        ),
        coalesce(h.retention_seconds, p_retention_seconds), c.paused_at, l.expires_at, c.max_in_flight,
        fastpubsub.rate_reached(c.rate_limit, n.full_at, v_now)
    from fastpubsub.cursors as c
    inner join fastpubsub.heads as h on h.topic_key = p_topic_key
    cross join lateral (
        select n.position, n.full_at from fastpubsub.claims as n
        where n.topic_key = p_topic_key and n.subscription_key = c.subscription_key
        order by n.sequence desc limit 1
    ) as n
    left join leased as l on c.subscription_key = l.subscription_key
    left join waiting as w on c.subscription_key = w.subscription_key
    left join dead as d on c.subscription_key = d.subscription_key
    where
        c.topic_key = p_topic_key
        and (v_last > n.position or l.messages > 0 or w.messages > 0 or d.messages > 0 or c.paused_at is not null);
end;
$$;

-- functions/name_turns.sql
-- For a caller that holds the cursor and requeues messages of an ordered subscription: a turn of 0 or -1 becomes the message's own
-- position, and its key gets its row in busy_keys, unless more of it was put aside. Without a key there is no turn.
create or replace function fastpubsub.name_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_turns bigint [],
    p_cursor bigint
) returns bigint []
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
    v_turns bigint [];
    v_last bigint [];
begin
    select
        array_agg(case when u.turn <= 0 then m.position else u.turn end order by u.ordinal),
        array_agg(m.position) filter (where k.position is null and m.position is not null)
    into v_turns, v_last
    from unnest(p_positions, p_turns) with ordinality as u (position, turn, ordinal)
    left join lateral (
        select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position and u.turn <= 0 and m.ordering_key is not null
        limit 1
    ) as m on true
    left join lateral (
        select k.position from fastpubsub.message_keys as k
        where
            k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > m.position and k.position <= p_cursor
        order by k.position limit 1
    ) as k on true;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return v_turns;
end;
$$;

-- functions/pass_busy_keys.sql
-- For a claim of an ordered subscription: puts the messages in (p_after, p_to] aside if all of them have a key that is busy, and returns
-- whether it did. It costs a fifth of looking at each message, as read_log_in_order does. p_first is the first kept position.
create or replace function fastpubsub.pass_busy_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint,
    p_first bigint
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_before bigint [];
    v_last bigint [];
    v_is_busy boolean;
    v_position bigint;
begin
    select array_agg(k.before), array_agg(k.last_position), bool_and(k.before is not null) into v_before, v_last, v_is_busy
    from (
        select
            s.last_position,
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
            ) as before
        from (
            select m.key_hash, min(m.position) as first_position, max(m.position) as last_position
            from (
                select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
            ) as m
            group by m.key_hash
        ) as s
    ) as k;
    if v_is_busy is not true then
        return false;
    end if;
    -- A join with the array would be planned by wrong statistics.
    foreach v_position in array v_before loop
        perform fastpubsub.follow_busy(p_topic_key, p_subscription_key, v_position);
    end loop;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return true;
end;
$$;

-- functions/pass_fairly.sql
-- For a claim of a fair subscription: puts the messages in (p_after, p_to] aside if all of them have a key that is busy,
-- and returns whether it did. It costs a fraction of looking at each message, as read_log_fairly does. p_first is the
-- first kept position.
create or replace function fastpubsub.pass_fairly(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_fair_by text,
    p_after bigint,
    p_to bigint,
    p_first bigint
) returns boolean
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
    v_before bigint [];
    v_is_busy boolean;
    v_position bigint;
begin
    with keys as materialized (
        select
            s.key_hash, s.last_position, s.positions,
            (
                select b.position
                from (
                    select b.position from fastpubsub.bundles as b
                    where
                        b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = s.key_hash
                        and b.position >= p_first
                    order by b.position desc limit 1
                ) as b
                where
                    (
                        select k.position from fastpubsub.busy_keys as k
                        where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = b.position
                        limit 1
                    ) is not null
            ) as before
        from (
            select m.key_hash, max(m.position) as last_position, array_agg(m.position) as positions
            from (
                select m.position, fastpubsub.fair_key(p_fair_by, m.ordering_key, m.attributes) as key_hash
                from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
            ) as m
            group by m.key_hash
        ) as s
    ),
    gate as materialized (
        select bool_and(k.before is not null) as is_busy, array_agg(k.before) as before from keys as k
    ),
    bundled as (
        insert into fastpubsub.bundles (topic_key, subscription_key, key_hash, position, positions)
        select p_topic_key, p_subscription_key, k.key_hash, k.last_position, k.positions from keys as k
        where (select g.is_busy from gate as g)
    ),
    marked as (
        insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
        select p_topic_key, p_subscription_key, k.last_position from keys as k
        where (select g.is_busy from gate as g)
    )
    select g.is_busy, g.before into v_is_busy, v_before from gate as g;
    if v_is_busy is not true then
        return false;
    end if;
    -- A join with the array would be planned by wrong statistics.
    foreach v_position in array v_before loop
        delete from fastpubsub.busy_keys as k
        where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = v_position;
    end loop;
    return true;
end;
$$;

-- functions/preview_seek.sql
-- What seek_subscription would do: how many messages are ahead and would be, when those that come next were published, and how many leases
-- and waiting retries would end. Of the messages ahead p_look are judged by the filter. Nothing is locked or changed.
create or replace function fastpubsub.preview_seek(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_to text,
    p_time timestamptz default null,
    p_position bigint default null,
    p_look integer default 10000,
    out ahead_now bigint,
    out ahead_after bigint,
    out is_estimated boolean,
    out ends_leased bigint,
    out ends_waiting bigint,
    out from_time timestamptz,
    out to_time timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_to bigint := fastpubsub.sought_position(p_topic_key, p_to, p_time, p_position);
    v_last bigint := fastpubsub.last_position(p_topic_key);
begin
    select c.position, c.retry_due_at, c.retry_position, u.filter_path into v_cursor
    from fastpubsub.claims as c
    inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select n.messages, a.messages, n.is_estimated or a.is_estimated
    into preview_seek.ahead_now, preview_seek.ahead_after, preview_seek.is_estimated
    from fastpubsub.count_ahead(p_topic_key, v_cursor.position, v_last, v_cursor.filter_path, p_look) as n
    cross join fastpubsub.count_ahead(p_topic_key, v_to, v_last, v_cursor.filter_path, p_look) as a;
    select coalesce(sum(l.last_position - l.position + 1), 0) into preview_seek.ends_leased
    from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into preview_seek.ends_waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.reason <> 'put aside';
    select preview_seek.ends_waiting + count(*) into preview_seek.ends_waiting from fastpubsub.parked as p
    where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.reason <> 'put aside';
    from_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_cursor.position + 1);
    to_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_to + 1);
end;
$$;

-- functions/publish.sql
-- For applications: publishes from the caller's own transaction, so that the message exists exactly if the transaction
-- commits. The relay of a server moves it into the log within moments of the commit; messages of one transaction keep
-- the order of the calls. Takes no lock that others wait for and does not change the caller's settings. With deliver_at
-- the message comes at that time, and the id of the delayed message is returned; otherwise null. A message that nobody
-- has taken by expires_at, or ttl_seconds after it was published (a delayed one: after it has come), is not delivered
-- any more. The rules of the server hold: an unknown topic raises FP404; FP422 is raised for a payload that is not a
-- JSON object or could not be read later, for attributes that are not an object of strings, for an ordering key that
-- does not have 1 to 128 characters, for a time more than a year ahead, and for a time to live that is not 1 to
-- 31536000 seconds or comes with expires_at. A JSON Schema of the topic is checked by the relay, which keeps what does
-- not match it apart.
create or replace function fastpubsub.publish(
    topic text,
    payload json,
    attributes jsonb default null,
    ordering_key text default null,
    deliver_at timestamptz default null,
    ttl_seconds integer default null,
    expires_at timestamptz default null
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_delayed_key bigint;
begin
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = publish.topic;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('topic "%s" does not exist', left(publish.topic, 128)),
            hint = 'Create it first, or correct its name.';
    end if;
    perform fastpubsub.check_payload(publish.payload);
    if publish.attributes in ('null', '{}') then
        publish.attributes := null;
    elsif publish.attributes is not null then
        perform fastpubsub.check_attributes(publish.attributes);
    end if;
    if length(publish.ordering_key) not between 1 and 128 then
        raise exception using errcode = 'FP422', message = 'an ordering key has 1 to 128 characters';
    end if;
    if publish.ttl_seconds is not null and publish.expires_at is not null then
        raise exception using errcode = 'FP422', message = 'a message has ttl_seconds or expires_at; give one of them';
    elsif publish.ttl_seconds not between 1 and 31536000 then
        raise exception using errcode = 'FP422', message = 'ttl_seconds must be 1 to 31536000, which is a year';
    end if;
    if publish.deliver_at > clock_timestamp() + interval '366 days' then
        raise exception using errcode = 'FP422', message = 'a message cannot be delayed for more than a year';
    elsif publish.deliver_at is not null then
        v_delayed_key := nextval('fastpubsub.delayed_messages_delayed_key_seq');
    end if;
    insert into fastpubsub.outbox (
        transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
    )
    values (
        pg_current_xact_id(), v_topic_key, publish.payload, publish.attributes, publish.ordering_key, publish.deliver_at,
        v_delayed_key, publish.ttl_seconds, publish.expires_at
    );
    return 'delayed-' || v_delayed_key;
end;
$$;

revoke execute on function fastpubsub.publish(text, json, jsonb, text, timestamptz, integer, timestamptz) from public;

-- functions/publish_refused_messages.sql
-- Gives what is refused of a topic to the relay again, in the order in which it was refused. Each was checked by
-- p_schema_version of the schema, as in relay_messages_2: one that has a reason now stays, with that reason. Returns
-- the keys of those that go.
create or replace function fastpubsub.publish_refused_messages(
    p_topic_key bigint,
    p_keys bigint [],
    p_reasons text [],
    p_schema_version bigint default 0
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_published bigint [];
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    update fastpubsub.refused_messages as r set reason = u.reason
    from unnest(p_keys, p_reasons) as u (refused_key, reason)
    cross join lateral (
        select m.ctid, m.reason from fastpubsub.refused_messages as m
        where m.topic_key = p_topic_key and m.refused_key = u.refused_key
        limit 1
    ) as m
    where r.ctid = m.ctid and m.reason <> u.reason;
    with taken as (
        delete from fastpubsub.refused_messages as r
        using unnest(p_keys, p_reasons) as u (refused_key, reason)
        cross join lateral (
            select m.ctid from fastpubsub.refused_messages as m
            where m.topic_key = p_topic_key and m.refused_key = u.refused_key
            limit 1
        ) as m
        where r.ctid = m.ctid and u.reason is null
        returning r.*
    ),
    stored as (
        insert into fastpubsub.outbox (
            transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
        )
        select
            pg_current_xact_id(), t.topic_key, t.payload, t.attributes, t.ordering_key, t.deliver_at, t.delayed_key,
            t.ttl_seconds, t.expires_at
        from taken as t
        order by t.refused_key
    )

    select coalesce(array_agg(t.refused_key), '{}') into v_published
    from taken as t;
    return v_published;
end;
$$;

-- functions/purge_refused_messages.sql
-- Deletes what is refused of a topic for good. Returns the keys that it deleted.
create or replace function fastpubsub.purge_refused_messages(p_topic_key bigint, p_keys bigint []) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_purged bigint [];
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    with purged as (
        delete from fastpubsub.refused_messages as r
        using unnest(p_keys) as u (refused_key)
        cross join lateral (
            select m.ctid from fastpubsub.refused_messages as m
            where m.topic_key = p_topic_key and m.refused_key = u.refused_key
            limit 1
        ) as m
        where r.ctid = m.ctid
        returning r.refused_key
    )

    select coalesce(array_agg(p.refused_key), '{}') into v_purged
    from purged as p;
    return v_purged;
end;
$$;

-- functions/purge_subscription.sql
-- Settles everything that is ahead, leased or waiting, and counts it: of the messages ahead of a filter at most p_look are judged, and
-- `is_estimated` says whether there were more. Dead letters stay. `acked` does not change.
create or replace function fastpubsub.purge_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look integer default 10000,
    p_now timestamptz default null,
    out purged bigint,
    out is_estimated boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_last bigint;
    v_ended bigint;
    v_ahead record;
    v_aside record;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_last := greatest(fastpubsub.last_position(p_topic_key), v_cursor.position);
    v_ahead := fastpubsub.count_ahead(p_topic_key, v_cursor.position, v_last, v_settings.filter_path, p_look);
    if v_settings.ordered or v_settings.fair_by is not null then
        v_aside := fastpubsub.count_put_aside(p_topic_key, p_subscription_key, p_look);
    end if;
    v_ended := fastpubsub.end_deliveries(p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position);
    for v_position in
        delete from fastpubsub.revived as v where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
        returning v.position
    loop
        perform fastpubsub.forget_failures(p_topic_key, p_subscription_key, v_position, v_position);
    end loop;
    perform fastpubsub.remember_seek(p_topic_key, p_subscription_key, v_cursor.position, v_last, 'purged', p_now);
    perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_last, v_cursor.routed, v_cursor.purged + v_ended);
    purged := v_ahead.messages + v_ended;
    is_estimated := v_ahead.is_estimated;
    if v_settings.ordered or v_settings.fair_by is not null then
        purged := purged + v_aside.messages;
        is_estimated := is_estimated or v_aside.is_estimated;
    end if;
end;
$$;

-- functions/put_aside.sql
drop function fastpubsub.put_aside;
-- The messages that an ordered or fair subscription has put aside, turn by turn, whether they pass the filter or not; p_limit of them, null
-- for all. It is no SQL function: in one, topics on several nodes would look empty.
create or replace function fastpubsub.put_aside(p_topic_key bigint, p_subscription_key bigint, p_limit bigint default null)
returns setof bigint
language plpgsql stable
as $$
declare
    v_fair_by text;
begin
    select u.fair_by into v_fair_by from fastpubsub.cursors as u
    where u.topic_key = p_topic_key and u.subscription_key = p_subscription_key;
    if v_fair_by is null then
        return query
        select k.position
        from (
            select c.position, c.retry_due_at, c.retry_position from fastpubsub.claims as c
            where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
            order by c.sequence desc limit 1
        ) as c
        cross join lateral (
            select l.turn, min(l.position) as position from fastpubsub.leases as l
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn > 0
            group by l.turn
            union all
            select p, p from fastpubsub.leases as l
            cross join lateral generate_series(l.position, l.last_position) as p
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn = 0
            union all
            select r.turn, r.position from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.turn is not null
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position)
        ) as t
        -- Joins would be planned by wrong statistics.
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = t.position
            limit 1
        ) as m
        cross join lateral (
            select k.position from fastpubsub.message_keys as k
            where k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > t.turn and k.position <= c.position
            order by k.position
            offset 0
        ) as k
        limit p_limit;
        return;
    end if;
    return query
    select b.position
    from (
        select c.retry_due_at, c.retry_position from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1
    ) as c
    cross join lateral (
        select r.turn, r.position from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.turn is not null
            and (r.due_at, r.position) > (c.retry_due_at, c.retry_position)
    ) as t
    cross join lateral (
        select fastpubsub.fair_key(v_fair_by, m.ordering_key, m.attributes) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = t.position
        limit 1
    ) as m
    cross join lateral (
        select u.position
        from (
            select b.positions from fastpubsub.bundles as b
            where
                b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = m.key_hash
                and b.position > t.turn
            order by b.position
            offset 0
        ) as b
        cross join lateral unnest(b.positions) as u (position)
        where u.position > t.turn
    ) as b
    limit p_limit;
end;
$$;

-- functions/read_claimed.sql
-- For a claim of an ordered subscription: what belongs to these messages, of which some may be copies of dead letters. With p_max_bytes
-- there are none, and `created_at` is null where they do not fit, one is gone, or one has expired.
create or replace function fastpubsub.read_claimed(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_max_bytes bigint default null,
    p_now timestamptz default null,
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out size bigint
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
    v_count integer := cardinality(p_positions);
begin
    if v_count = 0 then
        return;
    end if;
    -- A stretch of the log is read as one.
    if
        p_positions[v_count] - p_positions[1] = v_count - 1
        and p_positions = array(select generate_series(p_positions[1], p_positions[v_count]))
    then
        select array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes), array_agg(m.ordering_key), min(m.total)
        into
            read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys, read_claimed.size
        from (
            select
                m.created_at, m.payload, m.attributes, m.ordering_key,
                sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over () as total,
                bool_or(m.expires_at <= p_now) over () as are_expired
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position >= p_positions[1] and m.position <= p_positions[v_count]
            order by m.position
        ) as m
        -- Before payloads that are stored out of line are read.
        where p_max_bytes is null or (m.total <= p_max_bytes and m.are_expired is not true);
        if cardinality(read_claimed.created_at) = v_count then
            return;
        end if;
    end if;
    if p_max_bytes is not null then
        select array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes), array_agg(m.ordering_key), min(m.total)
        into
            read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys, read_claimed.size
        from (
            select
                m.created_at, m.payload, m.attributes, m.ordering_key, sum(m.size) over () as total,
                bool_or(m.expires_at <= p_now) over () as are_expired
            from unnest(p_positions) with ordinality as u (position, ordinal)
            cross join lateral (
                select
                    m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
                    pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size
                from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
            order by u.ordinal
        ) as m
        where m.total <= p_max_bytes and m.are_expired is not true;
        if cardinality(read_claimed.created_at) < v_count then
            created_at := null;
        end if;
        return;
    end if;
    select
        array_agg(coalesce(m.created_at, v.created_at) order by u.ordinal), array_agg(coalesce(m.payload, v.payload) order by u.ordinal),
        array_agg(coalesce(m.attributes, v.attributes) order by u.ordinal),
        array_agg(coalesce(m.ordering_key, v.ordering_key) order by u.ordinal)
    into read_claimed.created_at, read_claimed.payloads, read_claimed.attributes, read_claimed.ordering_keys
    from unnest(p_positions) with ordinality as u (position, ordinal)
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position and m.payload is null
        limit 1
    ) as v on true;
end;
$$;

-- functions/read_log.sql
-- Returns the messages of a topic in (p_after, p_to], in order, up to p_max_bytes together; with p_at_least_one, the first one comes
-- whatever its size. `expires_at` is null when no message has one.
create or replace function fastpubsub.read_log(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out expires_at timestamptz []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_to bigint := p_to;
begin
    -- Read the sizes first: that does not read the payloads that are stored out of line.
    if (
        select sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) > p_max_bytes
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
    ) then
        select coalesce(max(s.position), p_after) into v_to
        from (
            select
                m.position, row_number() over (order by m.position) as ordinal,
                sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        ) as s
        where s.running <= p_max_bytes or (p_at_least_one and s.ordinal = 1);
    end if;
    select
        array_agg(m.position), array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes),
        case when count(m.ordering_key) > 0 then array_agg(m.ordering_key) end,
        case when count(m.expires_at) > 0 then array_agg(m.expires_at) end
    into
        read_log.positions, read_log.created_at, read_log.payloads, read_log.attributes, read_log.ordering_keys, read_log.expires_at
    from (
        select m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= v_to
        order by m.position
    ) as m;
end;
$$;

-- functions/read_log_fairly.sql
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

-- functions/read_log_in_order.sql
drop function fastpubsub.read_log_in_order;
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
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_is_read boolean := false;
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
        if p_path is null then
            v_read := fastpubsub.take_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions,
                p_limit - cardinality(read_log_in_order.positions), p_max_bytes - read_log_in_order.size, p_now
            );
            v_is_read := v_read.scanned is not null;
        end if;
        if not v_is_read then
            v_read := fastpubsub.judge_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions,
                p_limit - cardinality(read_log_in_order.positions), p_max_bytes - read_log_in_order.size, p_now,
                p_at_least_one and read_log_in_order.size = 0, p_path, v_matching
            );
        end if;
        -- A join with the array would be planned by wrong statistics.
        foreach v_busy in array coalesce(v_read.busy, '{}') loop
            perform fastpubsub.follow_busy(p_topic_key, p_subscription_key, v_busy);
            v_place := array_position(read_log_in_order.positions, v_busy);
            if read_log_in_order.turns[v_place] = -1 then
                turns[v_place] := 0;
            end if;
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
    v_read := fastpubsub.read_claimed(p_topic_key, p_subscription_key, read_log_in_order.positions);
    created_at := v_read.created_at;
    payloads := v_read.payloads;
    attributes := v_read.attributes;
    ordering_keys := v_read.ordering_keys;
end;
$$;

-- functions/read_matching_log.sql
-- Returns the messages after p_after that a filter matches, bounded like scan_log, and by bytes like read_log. `scanned` is how far the
-- cursor can move: a position up to there that is not in `positions` does not match. Payloads that the filter cannot read are in
-- `unreadable`. `expires_at` is null when no message has one.
create or replace function fastpubsub.read_matching_log(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_rows bigint,
    p_milliseconds integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out scanned bigint,
    out unreadable bigint [],
    out unreadable_created_at timestamptz [],
    out ordering_keys text [],
    out expires_at timestamptz []
)
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
    v_found record;
begin
    v_found := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, p_limit, p_rows, p_milliseconds);
    scanned := v_found.scanned;
    if cardinality(v_found.unreadable) > 0 then
        select array_agg(m.position), array_agg(m.created_at)
        into read_matching_log.unreadable, read_matching_log.unreadable_created_at
        from unnest(v_found.unreadable) as u (position)
        cross join lateral (
            select m.position, m.created_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = u.position
            limit 1
        ) as m;
    end if;
    select
        array_agg(t.position), array_agg(t.created_at), array_agg(t.payload), array_agg(t.attributes),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at) end
    into
        read_matching_log.positions, read_matching_log.created_at, read_matching_log.payloads, read_matching_log.attributes,
        read_matching_log.ordering_keys, read_matching_log.expires_at
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running,
            row_number() over (order by m.position) as ordinal
        from unnest(v_found.positions) as p (position)
        cross join lateral (
            select m.position, m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            limit 1
        ) as m
        order by m.position
    ) as t
    where t.running <= p_max_bytes or (p_at_least_one and t.ordinal = 1);
    if coalesce(cardinality(read_matching_log.positions), 0) < cardinality(v_found.positions) then
        scanned := coalesce(read_matching_log.positions[cardinality(read_matching_log.positions)], p_after);
    end if;
end;
$$;

-- functions/read_outbox.sql
-- Returns the payloads of rows of the outbox, each in its place, null for one that is gone: to check them before they
-- are moved.
create or replace function fastpubsub.read_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint []
) returns json []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    return array(
        select coalesce(p.payload, 'null')
        from unnest(p_transactions, p_ordinals) with ordinality as u (transaction_id, ordinal, place)
        left join lateral (
            select o.payload from fastpubsub.outbox as o
            where
                o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal
                and o.topic_key = p_topic_key
            limit 1
        ) as p on true
        order by u.place
    );
end;
$$;

-- functions/refuse_messages.sql
-- Moves those rows of the outbox that have one of p_reasons to what is refused of their topic, and returns how many;
-- the others stay. For relay_messages_2, which holds the head.
create or replace function fastpubsub.refuse_messages(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_reasons text [],
    p_now timestamptz
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_refused integer;
begin
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals, p_reasons) as u (transaction_id, ordinal, reason)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where
                p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
                and p.topic_key = p_topic_key
            limit 1
        ) as p
        where o.ctid = p.ctid and u.reason is not null
        returning
            o.transaction_id, o.ordinal, u.reason, o.payload, o.attributes, o.ordering_key, o.deliver_at, o.delayed_key,
            o.ttl_seconds, o.expires_at
    )

    insert into fastpubsub.refused_messages (
        topic_key, refused_at, reason, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
    )
    select
        p_topic_key, p_now, t.reason, t.payload, t.attributes, t.ordering_key, t.deliver_at, t.delayed_key, t.ttl_seconds,
        t.expires_at
    from taken as t
    order by t.transaction_id, t.ordinal;
    get diagnostics v_refused = row_count;
    return v_refused;
end;
$$;

-- functions/relay_messages_2.sql
-- Moves rows of the outbox to the end of their topic, in the order of (transaction, ordinal), in one transaction, so
-- each arrives once. Rows that are gone were moved by another process. `moved` is null when another process is moving
-- rows at this moment. Rows of a topic that was deleted since are deleted and counted in `dropped`; those that are to
-- come later are put aside, and not counted. The payloads were checked by p_schema_version of the schema of the topic,
-- 0 for none; when it is not the current one, FP428 is raised, and nothing is moved. Rows with one of p_reasons do not
-- match it: they are kept apart, and counted in `refused`.
create or replace function fastpubsub.relay_messages_2(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_schema_version bigint default 0,
    p_reasons text [] default null,
    p_now timestamptz default null,
    out topic_id text,
    out moved integer,
    out dropped integer,
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
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_payloads json [];
    v_attributes jsonb [];
    v_ordering_keys text [];
    v_due_at timestamptz [];
    v_delayed_keys bigint [];
    v_ttl_seconds integer [];
    v_expires_at timestamptz [];
begin
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('relay_messages', false) then
        return;
    end if;
    refused := 0;
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    elsif found then
        select t.id into relay_messages_2.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
        if p_reasons is not null then
            refused := fastpubsub.refuse_messages(
                p_topic_key, p_transactions, p_ordinals, p_reasons, coalesce(p_now, clock_timestamp())
            );
        end if;
    end if;
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where
                p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
                and p.topic_key = p_topic_key
            limit 1
        ) as p
        where o.ctid = p.ctid
        returning
            o.transaction_id, o.ordinal, o.payload, o.attributes, o.ordering_key, o.deliver_at, o.delayed_key, o.ttl_seconds, o.expires_at
    )

    select
        array_agg(t.payload order by t.transaction_id, t.ordinal),
        array_agg(t.attributes order by t.transaction_id, t.ordinal),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key order by t.transaction_id, t.ordinal) end,
        case when count(t.deliver_at) > 0 then array_agg(t.deliver_at order by t.transaction_id, t.ordinal) end,
        array_agg(t.delayed_key order by t.transaction_id, t.ordinal),
        case when count(t.ttl_seconds) > 0 then array_agg(t.ttl_seconds order by t.transaction_id, t.ordinal) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at order by t.transaction_id, t.ordinal) end
    into v_payloads, v_attributes, v_ordering_keys, v_due_at, v_delayed_keys, v_ttl_seconds, v_expires_at
    from taken as t;
    moved := coalesce(cardinality(v_payloads), 0);
    dropped := 0;
    if topic_id is null then
        dropped := moved;
        moved := 0;
    elsif v_due_at is not null then
        perform fastpubsub.publish_and_delay(
            p_topic_key, v_payloads, v_attributes, v_ordering_keys, v_due_at, v_delayed_keys, coalesce(p_now, clock_timestamp()),
            v_ttl_seconds, v_expires_at
        );
        moved := cardinality(array_positions(v_due_at, null));
    elsif moved > 0 then
        perform fastpubsub.publish_messages(
            p_topic_key, v_payloads, v_attributes, null, p_now, v_ordering_keys, v_ttl_seconds, v_expires_at
        );
    end if;
end;
$$;

-- functions/release_delayed_messages.sql
-- Lets up to p_limit held messages of a topic come now, in the order of their times. Returns how many.
create or replace function fastpubsub.release_delayed_messages(
    p_topic_key bigint,
    p_limit integer,
    p_now timestamptz default null,
    out released integer
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
    v_floor fastpubsub.fired_messages;
    v_now timestamptz;
    v_held_after timestamptz;
    v_held_until timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select h.held_after, h.held_until into v_held_after, v_held_until
    from fastpubsub.heads as h
    where h.topic_key = p_topic_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_floor := fastpubsub.delayed_floor(p_topic_key, v_now);
    update fastpubsub.delayed_messages as m
    set due_at = h.due_at
    from (
        select
            m.ctid,
            greatest(v_now, v_floor.due_at) + make_interval(secs => row_number() over (order by m.due_at, m.delayed_key) / 1000000.0) as due_at
        from fastpubsub.delayed_messages as m
        where m.topic_key = p_topic_key and m.due_at > v_held_after and m.due_at <= v_held_until
        order by m.due_at, m.delayed_key
        limit p_limit
    ) as h
    where m.topic_key = p_topic_key and m.ctid = h.ctid;
    get diagnostics released = row_count;
    if released < p_limit and v_held_until is not null then
        update fastpubsub.heads as h set held_after = null, held_until = null where h.topic_key = p_topic_key;
    end if;
end;
$$;

-- functions/reprocess_dead_letters.sql
-- Moves dead letters back: their copy goes to `revived` and is due at once, and attempts start again at 1. Where a seek made the message
-- come again anyway (it is ahead of the cursor, put aside, leased or waiting), only the dead letter is deleted, and counts as purged; a
-- message ahead or put aside that the filter would skip stays dead. One that holds its key goes back to its place, before what was put
-- aside. Returns the positions that are no longer dead.
create or replace function fastpubsub.reprocess_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_created_at timestamptz [],
    p_now timestamptz default null
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
    v_coming bigint [];
    v_now timestamptz;
    v_due_at timestamptz;
    v_letter record;
    v_held bigint [] := '{}';
    v_aside bigint [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at, d.payload from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where d.created_at = i.created_at
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_due_at := greatest(v_now, v_cursor.retry_due_at + interval '1 microsecond');
    for v_letter in
        select d.position, d.turn
        from unnest(v_positions) as p
        cross join lateral (
            select d.position, d.turn from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
            limit 1
        ) as d
        where d.turn is not null
    loop
        if fastpubsub.end_hold(p_topic_key, p_subscription_key, v_letter.position, v_letter.turn, v_due_at, v_now) then
            v_held := v_held || v_letter.position;
        end if;
    end loop;
    -- Those that held their keys are where they belong, and what was put aside may be long.
    if (v_settings.ordered or v_settings.fair_by is not null) and cardinality(v_positions) > cardinality(v_held) then
        select coalesce(array_agg(p), '{}') into v_aside
        from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p
        where p = any(v_positions) and p <> all(v_held);
    end if;
    if v_settings.filter_path is not null and (v_positions[cardinality(v_positions)] > v_cursor.position or cardinality(v_aside) > 0) then
        select coalesce(array_agg(p order by p), '{}') into v_positions
        from unnest(v_positions) as p
        where
            (p <= v_cursor.position and p <> all(v_aside))
            or (
                select f.positions is not null
                from fastpubsub.matching_positions(p_topic_key, p - 1, p, v_settings.filter_path, 1) as f
            );
    end if;
    select coalesce(array_agg(t.position), '{}') into v_coming
    from (
        select p as position from unnest(v_positions) as p where p > v_cursor.position
        union
        select p from unnest(v_positions) as p
        cross join lateral (
            select l.last_position from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position <= p and l.position > p - 100
            order by l.position desc
            limit 1
        ) as l
        where l.last_position >= p
        union
        select r.position from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = any(v_positions)
        union
        select p.position from fastpubsub.parked as p
        where
            v_settings.ordered and p.topic_key = p_topic_key and p.subscription_key = p_subscription_key
            and p.position = any(v_positions)
        union
        select p from unnest(v_aside) as p where p = any(v_positions)
    ) as t
    where t.position <> all(v_held);
    insert into fastpubsub.revived (topic_key, subscription_key, position, created_at, payload, attributes, ordering_key)
    select d.topic_key, d.subscription_key, d.position, d.created_at, d.payload, d.attributes, d.ordering_key
    from unnest(v_positions) as p
    cross join lateral (
        select d.* from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where p <> all(v_coming);
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select p_topic_key, p_subscription_key, v_due_at, p, 0, 'reprocessed'
    from unnest(v_positions) as p
    where p <> all(v_coming) and p <> all(v_held);
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
    end loop;
    if cardinality(v_coming) > 0 then
        perform fastpubsub.move_cursor(
            p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_coming)
        );
    end if;
    return v_positions;
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
                p_now + make_interval(secs => coalesce(
                    r.delay_seconds,
                    least(v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(r.attempts, 1) - 1, 40))
                )),
                v_cursor.retry_due_at + interval '1 microsecond'
            )
        )
    into v_positions, v_attempts, v_reasons, v_causes, v_turns, v_consumer_ids, v_due_at
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons, p_causes, p_turns, p_consumer_ids)
        as r (position, last_position, attempts, delay_seconds, reason, cause, turn, consumer_id)
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

-- functions/require_dead_letter_topic.sql
-- Refuses a topic for the dead letters of a subscription of p_topic_id; null and '' are none. Dead letters may not
-- match the schema of the topic, so one that has a schema is refused; with one that it gets later, the relay keeps
-- apart what does not match.
create or replace function fastpubsub.require_dead_letter_topic(p_topic_id text, p_dead_letter_topic text) returns void
language plpgsql stable
as $$
declare
    v_topic_key bigint;
    v_schema_version bigint;
begin
    if p_dead_letter_topic is null or p_dead_letter_topic = '' then
        return;
    elsif p_dead_letter_topic = p_topic_id then
        raise exception using
            errcode = 'FP422',
            message = 'dead_letter_topic is the topic of the subscription, which would get its dead letters itself: name another one';
    end if;
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_dead_letter_topic;
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using
            errcode = 'FP404', message = format('dead_letter_topic: topic "%s" does not exist', p_dead_letter_topic);
    elsif v_schema_version <> 0 then
        raise exception using
            errcode = 'FP422',
            message = format(
                'dead_letter_topic: topic "%s" has a JSON Schema, and dead letters may not match it: name a topic without one',
                p_dead_letter_topic
            );
    end if;
end;
$$;

-- functions/reseal_endpoints.sql
-- Writes what endpoints have sealed, once it is sealed with another key; not of those that have changed since they were read. Returns how
-- many. An old secret that is no longer good is null.
create or replace function fastpubsub.reseal_endpoints(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_versions bigint [],
    p_headers bytea [],
    p_secrets bytea [],
    p_old_secrets bytea []
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_resealed bigint;
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.endpoints as e set headers = u.headers, secret = u.secret, old_secret = u.old_secret
    from
        unnest(p_topic_keys, p_subscription_keys, p_versions, p_headers, p_secrets, p_old_secrets)
        as u (topic_key, subscription_key, version, headers, secret, old_secret)
    where e.topic_key = u.topic_key and e.subscription_key = u.subscription_key and e.version = u.version;
    get diagnostics v_resealed = row_count;
    return v_resealed;
end;
$$;

-- functions/run_transaction.sql
drop function fastpubsub.run_transaction;
-- Settles deliveries and publishes messages, all of it or nothing: what settle_at_commit settles, and rows of the
-- outbox. Each settlement has the next p_counts of the ack ids; each message has its topic, times if it is to come
-- later or to expire, and the version of the schema by which it was checked, 0 for none: FP428 when that is not the
-- current one. FP404, FP410 and FP422 as in ack and publish.
create or replace function fastpubsub.run_transaction(
    p_subscriptions text [],
    p_actions text [],
    p_counts integer [],
    p_ack_ids text [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_topics text [],
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_deliver_at timestamptz [] default null,
    p_delay_seconds_of_messages integer [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    p_schema_versions bigint [] default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first integer := 1;
    v_topic record;
begin
    perform fastpubsub.begin_call(true);
    if p_schema_versions is null then
        -- A server of the last release, which counts what it settles, and checks nothing.
        perform set_config('fastpubsub.counts_itself', 'on', true);
    end if;
    for i in 1..cardinality(p_subscriptions) loop
        perform fastpubsub.add_settlement(
            p_subscriptions[i], p_actions[i], p_ack_ids[v_first:v_first + p_counts[i] - 1], p_delay_seconds[i], p_reasons[i]
        );
        v_first := v_first + p_counts[i];
    end loop;
    for v_topic in
        select u.id, t.topic_key, h.schema_version, u.checked_by
        from (
            select n.id, min(n.schema_version) as checked_by from unnest(p_topics, p_schema_versions) as n (id, schema_version) group by n.id
        ) as u
        left join fastpubsub.topics as t on u.id = t.id
        left join fastpubsub.heads as h on t.topic_key = h.topic_key
        order by u.id
    loop
        if v_topic.topic_key is null then
            raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', v_topic.id);
        elsif v_topic.schema_version <> coalesce(v_topic.checked_by, 0) then
            raise exception using
                errcode = case when p_schema_versions is null then 'FP422' else 'FP428' end,
                message = format('the schema of topic "%s" has changed; try again', v_topic.id);
        end if;
    end loop;
    insert into fastpubsub.outbox (
        transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, ttl_seconds, expires_at
    )
    select
        pg_current_xact_id(), t.topic_key, u.payload, u.attributes, u.ordering_key,
        fastpubsub.due_time(p_deliver_at[u.ordinal], p_delay_seconds_of_messages[u.ordinal], clock_timestamp()),
        p_ttl_seconds[u.ordinal], p_expires_at[u.ordinal]
    from unnest(p_topics, p_payloads, p_attributes, p_ordering_keys)
        with ordinality as u (topic, payload, attributes, ordering_key, ordinal)
    inner join fastpubsub.topics as t on u.topic = t.id
    order by u.ordinal;
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
-- by end_whole_leases and claim_stretch.
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
    if v_end = cardinality(p_positions) and not v_settings.ordered then
        v_acked := fastpubsub.end_whole_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_lengths);
        outcomes := v_acked.outcomes;
        freed := false;
        v_first := v_acked.runs + 1;
    end if;
    if v_end >= v_first then
        v_acked := fastpubsub.end_acked(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now, v_settings.ordered
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

    if cardinality(p_limits) > 0 then
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

-- functions/settle_at_commit.sql
-- Settles what an application's transaction has noted; a deferred trigger calls it when that commits, so the locks of a
-- settle last no longer than the commit. It settles everything at once, cursors first and in order, whatever the order
-- of the calls was, and leaves a row in the outbox for each subscription, from which a server counts. Raises FP410,
-- which rolls the transaction back, for a delivery that is not held any more.
create or replace function fastpubsub.settle_at_commit() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set lock_timeout = '2s'
as $$
declare
    v_settlements fastpubsub.settlements [];
    v_settlement fastpubsub.settlements;
    v_created_at timestamptz [];
    v_outcomes smallint [];
    v_died integer;
    v_deaths integer [] := '{}';
    v_settled integer [] := '{}';
begin
    -- Its locks would last until somebody commits it.
    if current_query() ~* '^\s*prepare\s+transaction' then
        raise exception using
            errcode = 'FP422',
            message = 'a transaction that settles deliveries cannot be prepared for two-phase commit',
            hint = 'Settle them over HTTP after the commit.';
    end if;
    with taken as (
        delete from fastpubsub.settlements as s where s.transaction_id = pg_current_xact_id() returning s
    )

    select array_agg(t.s order by (t.s).topic_key, (t.s).subscription_key, (t.s).ordinal) into v_settlements from taken as t;
    -- A single ack may need no cursor.
    if cardinality(v_settlements) > 1 then
        perform fastpubsub.lock_subscription(d.topic_key, d.subscription_key)
        from (
            select distinct s.topic_key, s.subscription_key from unnest(v_settlements) as s order by s.topic_key, s.subscription_key
        ) as d;
    end if;
    foreach v_settlement in array coalesce(v_settlements, '{}') loop
        v_created_at := array_fill(null::timestamptz, array[cardinality(v_settlement.positions)]);
        v_died := 0;
        if v_settlement.action = 'ack' then
            v_outcomes := (
                fastpubsub.ack_messages_2(
                    v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                    v_settlement.lengths
                )
            ).outcomes;
        elsif v_settlement.action = 'nack' then
            select n.outcomes, n.died into v_outcomes, v_died
            from fastpubsub.nack_messages(
                v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                array_fill(v_settlement.delay_seconds, array[cardinality(v_settlement.positions)]), v_settlement.lengths,
                null, array_fill(v_settlement.reason, array[cardinality(v_settlement.positions)])
            ) as n;
        else
            v_outcomes := (
                fastpubsub.reject_messages_2(
                    v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                    array_fill(v_settlement.reason, array[cardinality(v_settlement.positions)]), v_settlement.lengths
                )
            ).outcomes;
        end if;
        if 1 <> any(v_outcomes) then
            raise exception using
                errcode = 'FP410',
                message = format('a delivery that the transaction settles by %s is not held any more', v_settlement.action),
                hint = 'Everything was rolled back: whoever holds the message now does the work.';
        end if;
        v_settled := v_settled || cardinality(v_outcomes);
        v_deaths := v_deaths || case when v_settlement.action = 'reject' then cardinality(v_outcomes) else v_died end;
    end loop;
    if current_setting('fastpubsub.counts_itself', true) = 'on' then
        return;
    end if;
    insert into fastpubsub.outbox (transaction_id, topic_key, payload)
    select
        pg_current_xact_id(), 0,
        json_build_object(
            'topic_key', s.topic_key, 'subscription_key', s.subscription_key,
            'acked', sum(n.settled) filter (where s.action = 'ack'), 'nacked', sum(n.settled) filter (where s.action = 'nack'),
            'rejected', sum(n.settled) filter (where s.action = 'reject'), 'dead_lettered', sum(n.died)
        )
    from unnest(v_settlements) with ordinality as s
    inner join unnest(v_settled, v_deaths) with ordinality as n (settled, died, ordinality) on s.ordinality = n.ordinality
    group by s.topic_key, s.subscription_key;
end;
$$;

-- functions/subscription_metrics_2.sql
-- Messages ahead + waiting, leased, dead, acked, ttl_expired (dropped when they had expired) and dropped (because there were too many)
-- add up to the messages routed. For a filtered subscription at most p_look messages are judged; beyond them `ahead` is estimated by the
-- share that matched so far, and `estimated` says so. The search for the oldest message ahead that passes the filter takes up to
-- p_milliseconds longer. It has come from `judged_from` to `judged_to`, and no message between them matches the filter `judged_filter`; a
-- next call that is given these values goes on from there. Until a message is found, `unjudged` counts the messages left; then it is 0.
-- The positions are the oldest of each state that the log still has. `filtered` counts the messages that the cursor passed because a
-- filter kept them out, also those that it passed again after a seek. `held_keys` are those that a dead letter holds.
create or replace function fastpubsub.subscription_metrics_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look bigint default 10000,
    p_milliseconds integer default 0,
    p_judged_filter bigint default null,
    p_judged_from bigint default null,
    p_judged_to bigint default null,
    out ahead bigint,
    out waiting bigint,
    out leased bigint,
    out dead bigint,
    out acked bigint,
    out estimated boolean,
    out oldest_created_at timestamptz,
    out oldest_leased_created_at timestamptz,
    out oldest_waiting_created_at timestamptz,
    out unjudged bigint,
    out judged_filter bigint,
    out judged_from bigint,
    out judged_to bigint,
    out cursor_position bigint,
    out leased_position bigint,
    out waiting_position bigint,
    out filtered bigint,
    out paused boolean,
    out ttl_expired bigint,
    out held_keys bigint,
    out dropped bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_path jsonpath;
    v_puts_aside boolean;
    v_last bigint;
    v_first bigint;
    v_from bigint;
    v_oldest bigint;
    v_leased bigint;
    v_waiting bigint;
    v_log record;
begin
    select c.filter_path, c.paused_at is not null, c.ordered or c.fair_by is not null
    into v_path, subscription_metrics_2.paused, v_puts_aside
    from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    cursor_position := v_cursor.position;
    filtered := v_cursor.filtered;
    ttl_expired := coalesce(v_cursor.ttl_expired, 0);
    dropped := v_cursor.dropped;
    v_last := fastpubsub.last_position(p_topic_key);
    ahead := greatest(v_last - v_cursor.position, 0);
    estimated := false;
    unjudged := 0;
    v_oldest := v_cursor.position + 1;
    if v_path is not null then
        judged_filter := hashtextextended(v_path::text, 0);
        judged_from := v_cursor.position;
        v_from := v_cursor.position;
        if p_judged_filter = judged_filter and p_judged_from <= v_cursor.position then
            v_from := greatest(p_judged_to, v_cursor.position);
        end if;
        select s.positions, s.scanned into v_log
        from fastpubsub.scan_log(p_topic_key, v_from, v_last, v_path, p_look::integer, p_look, 100) as s;
        ahead := cardinality(v_log.positions);
        estimated := v_log.scanned < v_last;
        if estimated and ahead = 0 and p_milliseconds > 0 then
            select s.positions, s.scanned into v_log
            from fastpubsub.scan_log(p_topic_key, v_log.scanned, v_last, v_path, 1, v_last, p_milliseconds) as s;
            ahead := cardinality(v_log.positions);
            estimated := v_log.scanned < v_last;
        end if;
        v_oldest := v_log.positions[1];
        judged_to := coalesce(v_oldest - 1, v_log.scanned);
        if v_oldest is null then
            unjudged := greatest(v_last - v_log.scanned, 0);
        elsif estimated then
            ahead := ahead * (v_last - v_from) / (v_log.scanned - v_from);
        end if;
    end if;
    select m.created_at into oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_oldest;
    v_first := fastpubsub.first_position(p_topic_key, v_last);
    select
        count(*) filter (where r.reason <> 'put aside'), min(r.position) filter (where r.reason <> 'put aside'),
        min(r.position) filter (where r.position >= v_first), count(*) filter (where r.due_at = 'infinity')
    into waiting, v_waiting, waiting_position, held_keys
    from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    if v_puts_aside then
        select subscription_metrics_2.waiting + count(*), least(v_waiting, min(p.position)) into waiting, v_waiting
        from fastpubsub.parked as p
        where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.reason <> 'put aside';
        select
            subscription_metrics_2.ahead + a.messages, subscription_metrics_2.estimated or a.is_estimated,
            least(subscription_metrics_2.oldest_created_at, a.oldest_created_at)
        into ahead, estimated, oldest_created_at
        from fastpubsub.count_put_aside(p_topic_key, p_subscription_key, p_look) as a;
    end if;
    select
        coalesce(sum(l.last_position - l.position + 1), 0), min(l.position),
        min(greatest(l.position, v_first)) filter (where l.last_position >= v_first)
    into leased, v_leased, leased_position
    from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into dead from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key;
    acked := v_cursor.routed - waiting - leased - dead - v_cursor.purged - dropped - ttl_expired;
    oldest_leased_created_at := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_leased);
    oldest_waiting_created_at := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_waiting);
end;
$$;

-- functions/sum_topics.sql
drop function fastpubsub.sum_topics;
-- Returns how many topics and subscriptions a caller may see, and how many messages were ever published to these topics. Null is all.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.sum_topics(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_topic_keys bigint [] default null,
    out topics bigint,
    out subscriptions bigint,
    out published bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select count(*), coalesce(sum(
        case when p_topic_keys is null or t.topic_key = any(p_topic_keys) then fastpubsub.last_position(t.topic_key) end
    ), 0)
    into sum_topics.topics, sum_topics.published
    from fastpubsub.topics as t where p_topic_ids is null or t.id = any(p_topic_ids);
    select count(*) into sum_topics.subscriptions
    from fastpubsub.subscriptions as s where p_subscription_ids is null or s.id = any(p_subscription_ids);
end;
$$;

-- functions/take_fairly.sql
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

-- functions/take_in_line.sql
-- For a claim of a fair subscription: takes due retries in their order after the floor, and with each key that stands in
-- line its share of p_limit messages and p_max_bytes together (at least one). A key that has more stands at the end of the line
-- again, one without is no longer busy. `due_at` and `retry_position` are the next floor. What has expired is in
-- `expired` instead, with the attempts that it had.
create or replace function fastpubsub.take_in_line(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_fair_by text,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out due_at timestamptz,
    out retry_position bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out expired_attempts integer []
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
    -- Behind a filter.
    c_looked_at constant integer := 1000;
    v_line record;
    v_share integer;
    v_part record;
    v_again bigint [];
    v_again_turns bigint [];
    v_idle bigint;
    v_idles bigint [];
begin
    positions := '{}';
    attempts := '{}';
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    expired_attempts := '{}';
    select
        array_agg(r.due_at) as due_at, array_agg(r.position) as positions, array_agg(r.attempts) as attempts, array_agg(r.turn) as turns,
        array_agg(r.size) as sizes, array_agg(r.key_hash) as hashes, array_agg(r.is_expired) as are_expired
    into v_line
    from (
        select
            r.due_at, r.position, r.attempts, r.turn, m.key_hash,
            coalesce(m.size, v.size) as size, (m.expires_at <= p_now) is true and v.size is null as is_expired
        from fastpubsub.retries as r
        left join lateral (
            select
                pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size, m.expires_at,
                fastpubsub.fair_key(p_fair_by, m.ordering_key, m.attributes) as key_hash
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
        limit p_limit
    ) as r;
    v_share := greatest(p_limit / cardinality(v_line.positions), 1);
    for i in 1..coalesce(cardinality(v_line.positions), 0) loop
        exit when
            (cardinality(take_in_line.positions) > 0 and take_in_line.size + v_line.sizes[i] > p_max_bytes)
            or take_in_line.filtered >= c_looked_at;
        due_at := v_line.due_at[i];
        retry_position := v_line.positions[i];
        if v_line.turns[i] is null then
            if v_line.are_expired[i] then
                expired := take_in_line.expired || v_line.positions[i];
                expired_attempts := take_in_line.expired_attempts || v_line.attempts[i];
            else
                positions := take_in_line.positions || v_line.positions[i];
                attempts := take_in_line.attempts || v_line.attempts[i] + 1;
                size := take_in_line.size + v_line.sizes[i];
            end if;
            continue;
        end if;
        v_part := fastpubsub.take_share(
            p_topic_key, p_subscription_key, v_line.hashes[i], v_line.turns[i], p_path, v_share, p_max_bytes - take_in_line.size, p_now
        );
        positions := take_in_line.positions || v_part.positions;
        attempts := take_in_line.attempts || array_fill(1, array[cardinality(v_part.positions)]);
        size := take_in_line.size + v_part.size;
        routed := take_in_line.routed + v_part.routed;
        filtered := take_in_line.filtered + v_part.filtered;
        unreadable := take_in_line.unreadable || v_part.unreadable;
        expired := take_in_line.expired || v_part.expired;
        expired_attempts := take_in_line.expired_attempts || array_fill(0, array[cardinality(v_part.expired)]);
        if v_part.next_position is null then
            v_idles := v_idles || v_part.turn;
        else
            v_again := v_again || v_part.next_position;
            v_again_turns := v_again_turns || v_part.turn;
        end if;
    end loop;
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_in_line.due_at, take_in_line.retry_position);
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
    select
        p_topic_key, p_subscription_key, greatest(p_now, take_in_line.due_at + interval '1 microsecond'), u.position, 0, 'put aside', u.turn
    from unnest(v_again, v_again_turns) as u (position, turn);
    -- A join with the array would be planned by wrong statistics.
    foreach v_idle in array coalesce(v_idles, '{}') loop
        delete from fastpubsub.busy_keys as k
        where k.topic_key = p_topic_key and k.subscription_key = p_subscription_key and k.position = v_idle;
    end loop;
end;
$$;

-- functions/take_leases.sql
-- Ends the deliveries that the caller may settle. The ids come in runs of p_lengths (null: 1 each) consecutive positions from p_positions
-- on. A run has one token, or one creation time and no token: the latter stands for bare message ids, which settle a message whoever its
-- consumer is. The result comes in runs too; its `ordinals` tell which run of the caller settled each. `outcomes` says of every id, in the
-- order of the runs: 1 settled by this call, 0 gone (there is no delivery any more), 2 stale (another consumer holds the message).
--
-- Runs that consist of whole leases are deleted without the cursor's lock, in position order. All others cut leases and take that lock.
create or replace function fastpubsub.take_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    out positions bigint [],
    out last_positions bigint [],
    out tokens bigint [],
    out leased_at timestamptz [],
    out attempts integer [],
    out revived boolean [],
    out consumer_ids text [],
    out ordinals integer [],
    out outcomes smallint [],
    out turns bigint []
)
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
    -- Runs that are further apart are looked up one by one, without walking over the rows between them.
    c_gap constant bigint := 64;
    v_positions bigint [];
    v_lasts bigint [];
    v_tokens bigint [];
    v_ordinals integer [];
    v_ends integer [];
    v_count bigint;
    v_whole boolean;
    v_start integer := 1;
    v_end integer;
    v_taken record;
begin
    select
        array_agg(r.position), array_agg(r.last_position), array_agg(r.token), array_agg(r.ordinal),
        array_agg(r.place) filter (where r.distance > c_gap or r.distance is null), sum(r.last_position - r.position + 1),
        bool_and(r.is_whole and (r.distance > 0 or r.distance is null))
    into v_positions, v_lasts, v_tokens, v_ordinals, v_ends, v_count, v_whole
    from (
        select
            r.position, r.last_position, r.token, r.ordinal, row_number() over (order by r.position, r.ordinal) as place,
            lead(r.position) over (order by r.position, r.ordinal) - r.last_position as distance,
            r.last_position - r.position + 1 = (
                select coalesce(sum(l.last_position - l.position + 1), 0) from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position >= r.position and l.position <= r.last_position and l.last_position <= r.last_position
                    and case
                        when r.token is not null then l.token = r.token
                        when l.revived then l.last_position - l.position + 1 = (
                            select count(*) from fastpubsub.revived as v
                            where
                                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                                and v.position >= l.position and v.position <= l.last_position and v.created_at = r.created_at
                        )
                        else l.last_position - l.position + 1 = (
                            select count(*) from fastpubsub.messages as m
                            where
                                m.topic_key = p_topic_key and m.position >= l.position and m.position <= l.last_position
                                and m.created_at = r.created_at
                        )
                    end
            ) as is_whole
        from (
            select r.position, r.position + coalesce(r.length, 1) - 1 as last_position, r.token, r.created_at, r.ordinal
            from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                with ordinality as r (position, length, token, created_at, ordinal)
        ) as r
        order by r.position, r.ordinal
    ) as r;
    if v_whole is not true then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
        v_taken := fastpubsub.cut_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
        positions := v_taken.positions;
        last_positions := v_taken.positions;
        tokens := v_taken.tokens;
        leased_at := v_taken.leased_at;
        attempts := v_taken.attempts;
        revived := v_taken.revived;
        consumer_ids := v_taken.consumer_ids;
        ordinals := v_taken.ordinals;
        outcomes := v_taken.outcomes;
        turns := v_taken.turns;
        return;
    end if;
    -- A join with the ids would be planned by wrong statistics, and so would `any` before PostgreSQL 17; a range of the key never is.
    -- The runs are sorted, so width_bucket finds the run of a lease by binary search.
    foreach v_end in array v_ends loop
        with taken as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_lasts[v_end]
                and l.last_position <= v_lasts[width_bucket(l.position, v_positions)]
                and coalesce(l.token = v_tokens[width_bucket(l.position, v_positions)], true)
            returning l.position, l.last_position, l.token, l.leased_at, l.attempts, l.revived, l.consumer_id, l.turn
        )
        select
            array_agg(t.position) as positions, array_agg(t.last_position) as last_positions, array_agg(t.token) as tokens,
            array_agg(t.leased_at) as leased_at, array_agg(t.attempts) as attempts, array_agg(t.revived) as revived, array_agg(t.consumer_id) as consumer_ids,
            array_agg(v_ordinals[width_bucket(t.position, v_positions)]) as ordinals, array_agg(t.turn) as turns
        into v_taken
        from taken as t;
        positions := take_leases.positions || v_taken.positions;
        last_positions := take_leases.last_positions || v_taken.last_positions;
        tokens := take_leases.tokens || v_taken.tokens;
        leased_at := take_leases.leased_at || v_taken.leased_at;
        attempts := take_leases.attempts || v_taken.attempts;
        revived := take_leases.revived || v_taken.revived;
        consumer_ids := take_leases.consumer_ids || v_taken.consumer_ids;
        ordinals := take_leases.ordinals || v_taken.ordinals;
        turns := take_leases.turns || v_taken.turns;
        v_start := v_end + 1;
    end loop;
    if
        v_count is distinct from (
            select sum(t.last_position - t.position + 1)
            from unnest(take_leases.positions, take_leases.last_positions) as t (position, last_position)
        )
    then
        raise exception using
            errcode = '40001', message = 'another call settled, cut or extended a delivery at the same moment';
    end if;
    outcomes := array_fill(1::smallint, array[v_count::integer]);
end;
$$;

-- functions/take_put_aside.sql
-- For take_turns: what was put aside of some keys, each told by its turn and its first message, up to the cursor and p_share messages a
-- key. `turns` are those from now on. `positions` is null where this is not all there is to it: a message has expired or is gone, or they
-- do not fit into p_max_bytes.
create or replace function fastpubsub.take_put_aside(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_turns bigint [],
    p_cursor bigint,
    p_share integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out turns bigint [],
    out size bigint,
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
set enable_memoize = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_keys bigint;
    v_read record;
begin
    select array_agg(k.position), array_agg(k.turn), count(distinct k.ordinal)
    into take_put_aside.positions, take_put_aside.turns, v_keys
    from (
        select u.ordinal, k.position, k.turn
        from unnest(p_positions, p_turns) with ordinality as u (position, turn, ordinal)
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = u.position
            limit 1
        ) as m
        cross join lateral (
            select k.position, max(k.position) over () as turn
            from (
                select k.position from fastpubsub.message_keys as k
                where
                    k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position > u.turn and k.position <= p_cursor
                order by k.position limit p_share
            ) as k
        ) as k
        order by u.ordinal, k.position
    ) as k;
    if v_keys = cardinality(p_turns) then
        v_read := fastpubsub.read_claimed(p_topic_key, p_subscription_key, take_put_aside.positions, p_max_bytes, p_now);
        size := v_read.size;
        created_at := v_read.created_at;
        payloads := v_read.payloads;
        attributes := v_read.attributes;
        ordering_keys := v_read.ordering_keys;
    end if;
    if take_put_aside.created_at is null then
        positions := null;
    end if;
end;
$$;

-- functions/take_settled.sql
-- Takes rows of topic 0 out of the outbox, in which transactions of applications say what they have settled, and adds
-- them up by subscription: for the counters. Those of a subscription that was deleted since have no name.
create or replace function fastpubsub.take_settled(
    p_transactions bigint [],
    p_ordinals bigint [],
    out topic_key bigint,
    out subscription_key bigint,
    out subscription_id text,
    out acked bigint,
    out nacked bigint,
    out rejected bigint,
    out dead_lettered bigint
) returns setof record
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
    perform fastpubsub.begin_call(false);
    return query
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal and p.topic_key = 0
            limit 1
        ) as p
        where o.ctid = p.ctid
        returning o.payload
    ),
    settled as (
        select
            r.topic_key, r.subscription_key, sum(r.acked)::bigint as acked, sum(r.nacked)::bigint as nacked,
            sum(r.rejected)::bigint as rejected, sum(r.dead_lettered)::bigint as dead_lettered
        from taken as t
        cross join lateral json_to_record(t.payload) as r (
            topic_key bigint, subscription_key bigint, acked bigint, nacked bigint, rejected bigint, dead_lettered bigint
        )
        group by r.topic_key, r.subscription_key
    )

    select d.topic_key, d.subscription_key, s.id, d.acked, d.nacked, d.rejected, d.dead_lettered
    from settled as d
    left join fastpubsub.subscriptions as s on d.subscription_key = s.subscription_key;
end;
$$;

-- functions/take_share.sql
-- For a claim of a fair subscription: takes up to p_limit messages and p_max_bytes (at least one) of what it has put aside of a key after
-- p_turn, and passes the filter. What has expired is in `expired` instead. `turn` is the last message that it passed, and
-- `next_position` what comes next, null when there is nothing more.
create or replace function fastpubsub.take_share(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_key_hash bigint,
    p_turn bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out turn bigint,
    out next_position bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint []
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
    -- Behind a filter.
    c_looked_at constant integer := 1000;
    v_bundle record;
    v_part record;
    v_match record;
    v_is_full boolean := false;
    v_before bigint;
begin
    positions := '{}';
    turn := p_turn;
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    loop
        select b.positions into v_bundle
        from fastpubsub.bundles as b
        where
            b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = p_key_hash
            and b.position > take_share.turn
        order by b.position limit 1;
        exit when not found;
        v_before := take_share.turn;
        for v_part in
            select
                u.position, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true as is_expired
            from (
                select u.position from unnest(v_bundle.positions) as u (position)
                where u.position > take_share.turn
                order by u.position
                -- One more tells what comes next.
                limit case when p_path is null then p_limit - cardinality(take_share.positions) + 1 end
            ) as u
            cross join lateral (
                select m.payload, m.attributes, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
        loop
            v_is_full := cardinality(take_share.positions) >= p_limit
            or (cardinality(take_share.positions) > 0 and take_share.size + v_part.size > p_max_bytes)
            or cardinality(take_share.expired) >= c_looked_at or take_share.filtered >= c_looked_at;
            if v_is_full then
                next_position := v_part.position;
                return;
            end if;
            turn := v_part.position;
            if p_path is not null then
                v_match := fastpubsub.matching_positions(p_topic_key, v_part.position - 1, v_part.position, p_path, 1);
                unreadable := take_share.unreadable || v_match.unreadable;
                if v_match.positions is null then
                    filtered := take_share.filtered + 1;
                    continue;
                end if;
            end if;
            routed := take_share.routed + 1;
            if v_part.is_expired then
                expired := take_share.expired || v_part.position;
                continue;
            end if;
            positions := take_share.positions || v_part.position;
            size := take_share.size + v_part.size;
        end loop;
        if take_share.turn = v_before then
            raise exception using
                errcode = 'FP500',
                message = format(
                    'position %s of topic_key %s is put aside for subscription_key %s and is not there',
                    v_bundle.positions[cardinality(v_bundle.positions)], p_topic_key, p_subscription_key
                );
        end if;
    end loop;
end;
$$;

-- functions/take_stretch.sql
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

-- functions/take_turns.sql
drop function fastpubsub.take_turns;
-- For a claim of an ordered subscription: takes due retries in their order after the floor, up to 4, and with each what its key has after
-- it, up to p_limit messages and p_max_bytes together (at least one). `due_at` and `retry_position` are the next floor. What has expired is
-- in `expired` instead, with the attempts that it had. `are_new` says that nobody had any of the messages before, `is_more` that something
-- else may be due.
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
        limit least(p_limit, c_turns)
    ) as r;
    v_retry_position := v_positions[cardinality(v_positions)];
    is_more := cardinality(v_positions) >= least(p_limit, c_turns);
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
    is_more := coalesce(take_turns.is_more or take_turns.retry_position <> v_retry_position, false);
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

-- functions/trim_messages.sql
-- Deletes up to p_limit messages from the front of a topic: older than the retention (of the topic, else p_retention_seconds) and below
-- every cursor, every leased and every waiting position, but never the newest. Returns how many it deleted.
create or replace function fastpubsub.trim_messages(
    p_topic_key bigint,
    p_retention_seconds bigint,
    p_limit integer default 5000,
    p_wait boolean default false,
    p_now timestamptz default null
) returns integer
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
    v_retention bigint;
    v_last bigint;
    v_first bigint;
    v_end bigint;
    v_pin bigint;
    v_subscription record;
    v_bundle record;
    v_cursor fastpubsub.claims;
    v_trimmed integer;
begin
    perform fastpubsub.begin_call(false);
    if not fastpubsub.lock_job('trim_messages', p_wait) then
        return 0;
    end if;
    select coalesce(h.retention_seconds, p_retention_seconds) into v_retention from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        return 0;
    end if;
    v_last := fastpubsub.last_position(p_topic_key);
    v_first := fastpubsub.first_position(p_topic_key, v_last);
    -- Exclusive: the first position that stays.
    v_end := least(
        v_last, v_first + p_limit, fastpubsub.position_before(p_topic_key, v_now - make_interval(secs => v_retention)) + 1
    );
    -- A cursor is read with its lock held, so that no claim can lease, and no seek can go, below v_end in the meantime.
    for v_subscription in
        select c.subscription_key from fastpubsub.cursors as c
        where c.topic_key = p_topic_key
        order by c.subscription_key
        for no key update
    loop
        exit when v_end <= v_first;
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_end := least(v_end, v_cursor.position + 1);
        -- A row of leases may begin with reprocessed dead letters below v_first, and is at most a hundred positions long.
        select min(greatest(l.position, v_first)) into v_pin from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = v_subscription.subscription_key
            and l.position > v_first - 100 and l.position < v_end and l.last_position >= v_first;
        v_end := least(v_end, v_pin);
        -- A message that waits below v_first is a reprocessed dead letter with a copy of its own.
        select min(r.position) into v_pin from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = v_subscription.subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and r.position >= v_first and r.position < v_end;
        v_end := least(v_end, v_pin);
    end loop;
    if v_end <= v_first then
        return 0;
    end if;
    for v_subscription in
        select c.subscription_key, c.fair_by from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.fair_by is not null
    loop
        -- Each is found by its last message. A join would be planned by wrong statistics.
        for v_bundle in
            select b.key_hash, b.position from fastpubsub.messages as m
            cross join lateral (
                select b.key_hash, b.position from fastpubsub.bundles as b
                where
                    b.topic_key = p_topic_key and b.subscription_key = v_subscription.subscription_key
                    and b.key_hash = fastpubsub.fair_key(v_subscription.fair_by, m.ordering_key, m.attributes)
                    and b.position = m.position
                limit 1
            ) as b
            where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end
        loop
            delete from fastpubsub.bundles as b
            where
                b.topic_key = p_topic_key and b.subscription_key = v_subscription.subscription_key
                and b.key_hash = v_bundle.key_hash and b.position = v_bundle.position;
        end loop;
    end loop;
    with trimmed as (
        delete from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end
        returning m.position, m.ordering_key
    ),
    keys as (
        delete from fastpubsub.message_keys as k
        using trimmed as t
        where
            t.ordering_key is not null
            and k.topic_key = p_topic_key and k.key_hash = hashtextextended(t.ordering_key, 0) and k.position = t.position
    )
    select count(*) into v_trimmed from trimmed as t;
    -- A dead letter keeps how it failed. A message whose copy waits or is leased was not trimmed just now.
    for v_subscription in select c.subscription_key from fastpubsub.cursors as c where c.topic_key = p_topic_key loop
        delete from fastpubsub.failures as f
        where
            f.topic_key = p_topic_key and f.subscription_key = v_subscription.subscription_key
            and f.position >= v_first and f.position < v_end
            and not exists (
                select from fastpubsub.dead_letters as d
                where
                    d.topic_key = p_topic_key and d.subscription_key = v_subscription.subscription_key
                    and d.position = f.position
                offset 0
            );
    end loop;
    return v_trimmed;
end;
$$;

-- functions/trim_refused_messages.sql
-- Deletes up to p_limit messages that were refused more than p_old_seconds ago, and returns how many.
create or replace function fastpubsub.trim_refused_messages(
    p_old_seconds bigint,
    p_limit integer default 5000,
    p_now timestamptz default null
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_deleted bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.refused_messages as a
    using (
        select o.ctid from fastpubsub.refused_messages as o
        where o.refused_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds)
        order by o.refused_at
        limit p_limit
    ) as o
    where a.ctid = o.ctid;
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;

-- functions/update_subscription_2.sql
-- A null parameter keeps the present value; p_change_filter tells a filter that is removed from one that stays. The new filter judges the
-- messages ahead; messages that the old one skipped do not come back. p_push is that of set_push, whose answer is `is_new_secret`;
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds or p_max_backlog of 0 removes the limit, p_dead_letter_topic of '' that topic.
-- With p_expire_after_seconds the time until it expires begins anew. p_on_dead_letter counts for dead letters from now on.
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
        on_full = coalesce(p_on_full, c.on_full)
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

-- functions/were_created_at.sql
drop function fastpubsub.were_created_at;
