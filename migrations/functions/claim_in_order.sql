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
