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
