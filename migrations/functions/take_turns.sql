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
