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
