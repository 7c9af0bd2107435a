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
    elsif cardinality(p_positions) = 1 then
        -- When this is no whole lease, no lock was taken, and what follows may still wait for the cursor.
        v_ended := fastpubsub.end_whole_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_lengths);
        if v_ended.runs = 1 then
            outcomes := v_ended.outcomes;
            freed := false;
            return;
        end if;
    end if;
    v_ended := fastpubsub.end_acked(
        p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths, p_now, v_ordered
    );
    outcomes := v_ended.outcomes;
    freed := v_ended.freed;
end;
$$;

-- functions/claim_in_order.sql
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
    -- Keys that go on, taken together, at most.
    c_at_once constant integer := 32;
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
    -- How many now: a key that fills the batch leaves the others to other consumers; where keys have little, it is soon many.
    v_at_once integer;
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
        v_at_once := 1;
        loop
            v_left := p_limits[v_consumer] - cardinality(v_positions);
            exit when v_left = 0 or v_bytes >= p_max_bytes or v_next_at >= v_next_count;
            -- As take_turns would.
            v_keys := least(v_left, v_at_once, v_next_count - v_next_at);
            v_part := fastpubsub.take_put_aside(
                v_topic_key, v_subscription_key, v_next[v_next_at + 1 : v_next_at + v_keys],
                v_next_turns[v_next_at + 1 : v_next_at + v_keys], v_cursor.position, greatest(v_left / v_keys, 1),
                p_max_bytes - v_bytes, p_now
            );
            exit when v_part.positions is null;
            v_at_once := least(2 * v_at_once, c_at_once);
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
                p_settings.filter_path, v_left, p_max_bytes - v_bytes, p_now, v_at_once
            );
            v_at_once := least(2 * v_at_once, c_at_once);
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

-- functions/end_whole_leases.sql
-- The usual case of an ack: few runs, of which each is one whole lease with its token. Ends these one after the other, up to the first run
-- that is something else, such as a part of a lease; `runs` are ended, and `outcomes` are those of their ids. The caller holds the cursor,
-- or has a single run, and leaves the other runs to take_leases. That locks leases by position, so this begins only when the runs are in
-- order and apart.
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

-- functions/explain_in_subscriptions_2.sql
-- explain_message_2 for the subscriptions of the topic, ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.explain_in_subscriptions_2(
    p_topic_key bigint,
    p_position bigint,
    p_ids text [],
    p_offset bigint,
    p_limit integer
) returns table (
    subscription_id text,
    state text,
    attempts integer,
    consumer_id text,
    until timestamptz,
    died_at timestamptz,
    reason text,
    before bigint,
    before_is_estimated boolean,
    filter json,
    field text,
    expected json,
    actual json,
    actual_bytes integer,
    similar_field text,
    is_readable boolean,
    sought_at timestamptz,
    paused_at timestamptz,
    leased_at timestamptz,
    is_put_aside boolean,
    at_limit integer,
    at_rate_limit double precision,
    failures json,
    expired_at timestamptz,
    held_by text,
    may_be_dropped boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_ids text [];
    v_keys bigint [];
begin
    select array_agg(s.id order by s.id collate "C"), array_agg(s.subscription_key order by s.id collate "C") into v_ids, v_keys
    from (
        select s.id, s.subscription_key from fastpubsub.subscriptions as s
        where s.topic_key = p_topic_key and (p_ids is null or s.id = any(p_ids))
        order by s.id collate "C"
        offset p_offset
        limit p_limit
    ) as s;
    for i in 1..coalesce(cardinality(v_ids), 0) loop
        return query select v_ids[i], e.* from fastpubsub.explain_message_2(p_topic_key, v_keys[i], p_position, 1000) as e;
    end loop;
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
    v_key_turn bigint;
    v_created_at timestamptz;
begin
    select c.position, c.retry_due_at, c.retry_position, s.filter, u.filter_path, u.paused_at,
        u.ordered, u.fair_by, u.max_in_flight, u.rate_limit, c.full_at, c.dropped
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
    if v_cursor.ordered and explain_message_2.state is null and p_position <= v_cursor.position then
        select k.turns[1] into v_key_turn from fastpubsub.key_turns(p_topic_key, p_subscription_key, array[p_position]) as k;
        select 'waiting', p.attempts, p.due_at, p.reason
        into explain_message_2.state, explain_message_2.attempts, explain_message_2.until, explain_message_2.reason
        from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_key_turn
            and p.position = p_position and p.reason <> 'put aside';
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
    is_put_aside := coalesce(v_key_turn < p_position, false)
    or (
        v_cursor.fair_by is not null and p_position <= v_cursor.position
        and p_position in (select p from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p)
    );
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
    v_cursor.sought_sequence := null;
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

-- functions/key_turns.sql
-- Of these messages, which the cursor of an ordered subscription has passed, those with a key that is busy, each with the turn of the key:
-- those after it were put aside, and those up to it that wait are in `retries`, or parked in this turn. A key of which a message is
-- leased that is alone with it, and nothing behind it, is not among them.
create or replace function fastpubsub.key_turns(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    out positions bigint [],
    out turns bigint []
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_hashes bigint [];
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select array_agg(u.position), array_agg(m.key_hash) into v_positions, v_hashes
    from unnest(p_positions) as u (position)
    cross join lateral (
        select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position and m.ordering_key is not null
        limit 1
    ) as m
    cross join lateral (
        select k.position from fastpubsub.message_keys as k
        where k.topic_key = p_topic_key and k.key_hash = m.key_hash and k.position <= v_cursor.position
        order by k.position desc limit 1
    ) as k
    cross join lateral (
        select from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
        limit 1
    ) as b;
    if v_positions is null then
        return;
    end if;
    select array_agg(k.position), array_agg(k.turn) into key_turns.positions, key_turns.turns
    from (
        select u.position, max(t.turn) as turn
        from (
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
                and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
        ) as t
        cross join lateral (
            select hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = t.position
            limit 1
        ) as m
        cross join lateral unnest(v_positions, v_hashes) as u (position, key_hash)
        where u.key_hash = m.key_hash
        group by u.position
    ) as k;
end;
$$;

-- functions/record_breakers.sql
-- Writes what became of the breakers of endpoints that a process holds: failures in a row, 0 for one that is closed, and in how many
-- seconds an open one tries again. One that is closed already is not written.
create or replace function fastpubsub.record_breakers(
    p_process bigint,
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_failures integer [],
    p_seconds double precision [],
    p_reasons text [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_next_try_at timestamptz [] := array(
        select v_now + make_interval(secs => u.seconds) from unnest(p_seconds) with ordinality as u (seconds, place) order by u.place
    );
begin
    perform fastpubsub.begin_call(false);
    update fastpubsub.endpoints as e set
        breaker_opened_at = case when u.failures > 0 then coalesce(e.breaker_opened_at, v_now) end,
        failures = nullif(u.failures, 0),
        next_try_at = case when u.failures > 0 then u.next_try_at end,
        last_failure = case when u.failures > 0 then u.reason end
    from
        unnest(p_topic_keys, p_subscription_keys, p_failures, v_next_try_at, p_reasons)
        as u (topic_key, subscription_key, failures, next_try_at, reason)
    where
        e.topic_key = u.topic_key and e.subscription_key = u.subscription_key and e.holder = p_process
        and (u.failures > 0 or e.failures is not null);
end;
$$;

-- functions/renew_endpoint.sql
-- Puts an endpoint in the place of the one that its subscription may have, with a new version: whoever pushes there reads it anew. Where
-- topics are on several nodes, an update could not make the version.
create or replace function fastpubsub.renew_endpoint(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_settings json,
    p_headers bytea,
    p_secret bytea,
    p_old_secret bytea default null,
    p_old_secret_expires_at timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old fastpubsub.endpoints;
begin
    delete from fastpubsub.endpoints as e
    where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    returning e.* into v_old;
    insert into fastpubsub.endpoints (
        topic_key, subscription_key, settings, headers, secret, old_secret, old_secret_expires_at, holder, breaker_opened_at, failures,
        next_try_at, last_failure
    ) values (
        p_topic_key, p_subscription_key, p_settings, p_headers, p_secret, p_old_secret, p_old_secret_expires_at, v_old.holder,
        v_old.breaker_opened_at, v_old.failures, v_old.next_try_at, v_old.last_failure
    );
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
    v_again bigint [];
    v_busy bigint [];
    v_turns bigint [];
    v_elsewhere bigint [] := '{}';
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
    -- Only a seek makes a message come again, of which a dead letter remains. What died after the last one is nowhere else, and is looked
    -- for nowhere, since a message that waits is not found by its position. Those that held their keys are where they belong.
    select array_agg(d.position) into v_again
    from unnest(v_positions) as p
    cross join lateral (
        select d.position, d.sequence from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where
        p <= v_cursor.position and p <> all(v_held)
        -- One that died before there was this column may be anywhere.
        and (d.sequence is null or d.sequence < v_settings.sought_sequence);
    if v_again is not null and v_settings.ordered then
        select k.positions, k.turns into v_busy, v_turns from fastpubsub.key_turns(p_topic_key, p_subscription_key, v_again) as k;
        select coalesce(array_agg(t.position), '{}') into v_aside
        from unnest(v_busy, v_turns) as t (position, turn) where t.turn < t.position;
        select coalesce(array_agg(p.position), '{}') into v_elsewhere
        from unnest(v_busy, v_turns) as t (position, turn)
        cross join lateral (
            select p.position from fastpubsub.parked as p
            where
                p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = t.turn
                and p.position = t.position
            limit 1
        ) as p;
    elsif v_again is not null and v_settings.fair_by is not null then
        select coalesce(array_agg(p), '{}') into v_aside
        from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p
        where p = any(v_again);
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
    if v_again is not null then
        select v_elsewhere || coalesce(array_agg(t.position), '{}') into v_elsewhere
        from (
            select p as position from unnest(v_again) as p
            cross join lateral (
                select l.last_position from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position <= p and l.position > p - 100
                order by l.position desc
                limit 1
            ) as l
            where l.last_position >= p
            union all
            select r.position from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = any(v_again)
        ) as t;
    end if;
    select coalesce(array_agg(p), '{}') into v_coming
    from unnest(v_positions) as p
    where p > v_cursor.position or p = any(v_elsewhere) or p = any(v_aside);
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
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key, turn,
        sequence
    )
    select
        p_topic_key, p_subscription_key, u.position, coalesce(m.created_at, v.created_at), p_now, u.attempts,
        coalesce(
            u.reason,
            format('%s on delivery attempt %s of %s%s', p_cause, u.attempts, v_settings.max_delivery_attempts, u.cause)
        ),
        coalesce(m.payload, v.payload), coalesce(m.attributes, v.attributes), coalesce(m.ordering_key, v.ordering_key),
        case when v_settings.on_dead_letter = 'hold' then u.turn end, v_cursor.sequence
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
        died_at = excluded.died_at, attempts = excluded.attempts, reason = excluded.reason, turn = excluded.turn,
        sequence = excluded.sequence;
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

-- functions/rotate_push_secret.sql
-- Signs with another secret; the previous one signs as well for p_old_seconds. Raises FP409 while two secrets are good, unless
-- p_old_seconds is 0: ending one of them unasked could end the one in use.
create or replace function fastpubsub.rotate_push_secret(
    p_id text,
    p_secret bytea,
    p_old_seconds integer,
    p_now timestamptz default null,
    out old_secret_expires_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_subscription_key bigint;
    v_endpoint fastpubsub.endpoints;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key from fastpubsub.subscriptions as s where s.id = p_id;
    if found then
        -- Whoever changes the endpoint puts a new row in its place, which is not seen by a statement that has waited for the old one.
        perform fastpubsub.lock_subscription(v_topic_key, v_subscription_key);
    end if;
    select e.* into v_endpoint from fastpubsub.endpoints as e
    where e.topic_key = v_topic_key and e.subscription_key = v_subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('there is no subscription "%s" that is pushed', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_old_seconds > 0 then
        if v_endpoint.old_secret_expires_at > v_now then
            raise exception using
                errcode = 'FP409',
                message = format('subscription "%s" already has two secrets; wait for the end of the old one, or end both with old_secret_seconds 0', p_id);
        end if;
        rotate_push_secret.old_secret_expires_at := v_now + make_interval(secs => p_old_seconds);
    end if;
    perform fastpubsub.renew_endpoint(
        v_endpoint.topic_key, v_endpoint.subscription_key, v_endpoint.settings, v_endpoint.headers, p_secret,
        case when p_old_seconds > 0 then v_endpoint.secret end, rotate_push_secret.old_secret_expires_at
    );
end;
$$;

-- functions/seek_subscription.sql
-- Moves the cursor: p_to is 'earliest', 'latest', 'time' (the first message created at or after p_time comes next) or 'message' (p_position
-- comes next). Leases and waiting retries end, so old ack ids become stale. Dead letters stay; a reprocessed one that was not settled yet
-- becomes a dead letter again, because its message may be trimmed. `acked` does not change.
create or replace function fastpubsub.seek_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_to text,
    p_time timestamptz default null,
    p_position bigint default null,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_position bigint;
    v_ended bigint;
    v_revived bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_position := fastpubsub.sought_position(p_topic_key, p_to, p_time, p_position);
    v_ended := fastpubsub.end_deliveries(p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position);
    with moved as (
        delete from fastpubsub.revived as v where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
        returning v.*
    )
    insert into fastpubsub.dead_letters (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key, sequence
    )
    select
        m.topic_key, m.subscription_key, m.position, m.created_at, coalesce(p_now, clock_timestamp()), 0,
        'the subscription was sought elsewhere before the reprocessed message was settled', m.payload, m.attributes, m.ordering_key,
        v_cursor.sequence
    from moved as m
    on conflict (topic_key, subscription_key, position) do nothing;
    get diagnostics v_revived = row_count;
    -- What has died may come again.
    if v_position < v_cursor.position then
        update fastpubsub.cursors as c set sought_sequence = v_cursor.sequence + 1
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    end if;
    perform fastpubsub.remember_seek(p_topic_key, p_subscription_key, v_cursor.position, v_position, 'skipped', p_now);
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_position, v_cursor.routed - v_ended + v_revived, v_cursor.purged
    );
end;
$$;

-- functions/set_push.sql
-- Turns push on, changes it, or turns it off; the caller holds the cursor. p_push has the settings as users see them and, in base64, the
-- sealed headers and a sealed secret, which is for an endpoint that has none, or one for another kind of signature. Returns whether the
-- secret was taken.
create or replace function fastpubsub.set_push(p_topic_key bigint, p_subscription_key bigint, p_push json) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_endpoint fastpubsub.endpoints;
    v_is_new boolean;
begin
    update fastpubsub.cursors as c set is_pushed = case when p_push is not null then true end
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if p_push is null then
        delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        return false;
    end if;
    select e.* into v_endpoint from fastpubsub.endpoints as e
    where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    for update;
    v_is_new := not found
    or coalesce(v_endpoint.settings ->> 'signature', 'hmac') <> coalesce(p_push -> 'settings' ->> 'signature', 'hmac');
    if v_is_new then
        delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        v_endpoint := null;
        v_endpoint.secret := decode(p_push ->> 'secret', 'base64');
    end if;
    perform fastpubsub.renew_endpoint(
        p_topic_key, p_subscription_key, p_push -> 'settings', decode(p_push ->> 'headers', 'base64'), v_endpoint.secret,
        v_endpoint.old_secret, v_endpoint.old_secret_expires_at
    );
    return v_is_new;
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
    v_fitting bigint;
    v_read record;
begin
    -- What is read of several keys comes message by message, so each is looked up here, and is usually small enough to fit whatever the
    -- others are.
    select
        array_agg(k.position), array_agg(k.turn), count(distinct k.ordinal), count(*) filter (where m.fits), sum(m.size),
        array_agg(m.created_at), array_agg(m.payload) filter (where m.fits), array_agg(m.attributes) filter (where m.fits),
        array_agg(m.ordering_key)
    into
        take_put_aside.positions, take_put_aside.turns, v_keys, v_fitting, take_put_aside.size, take_put_aside.created_at,
        take_put_aside.payloads, take_put_aside.attributes, take_put_aside.ordering_keys
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
    ) as k
    left join lateral (
        select
            m.created_at, m.payload, m.attributes, m.ordering_key,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) <= p_max_bytes / (p_share * cardinality(p_turns))
            and (m.expires_at > p_now) is not false as fits
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = k.position and cardinality(p_turns) > 1
        limit 1
    ) as m on true;
    if v_keys = cardinality(p_turns) and v_fitting = cardinality(take_put_aside.positions) then
        return;
    end if;
    created_at := null;
    -- What one key has may be a stretch of the log, which is read as one.
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

-- functions/take_turns.sql
drop function fastpubsub.take_turns;
-- For a claim of an ordered subscription: takes due retries in their order after the floor, up to p_turns, and with each what its key has
-- after it, up to p_limit messages and p_max_bytes together (at least one). `due_at` and `retry_position` are the next floor. What has
-- expired is in `expired` instead, with the attempts that it had. `are_new` says that nobody had any of the messages before, `is_more` that
-- something else is due.
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
    p_turns integer,
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
        limit least(p_limit, p_turns) + 1
    ) as r;
    is_more := cardinality(v_positions) > least(p_limit, p_turns);
    if take_turns.is_more then
        v_positions := v_positions[: least(p_limit, p_turns)];
        v_due_at := v_due_at[: least(p_limit, p_turns)];
        v_turns := v_turns[: least(p_limit, p_turns)];
        v_put_aside := v_put_aside[: least(p_limit, p_turns)];
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
        exit when
            (cardinality(take_turns.positions) > 0 and take_turns.size + v_sizes[i] > p_max_bytes)
            or cardinality(take_turns.expired) >= 1000;
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
