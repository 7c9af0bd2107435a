-- functions/ack.sql
drop function fastpubsub.ack;

-- functions/ack_messages.sql
-- Settles deliveries for good. The ids come in runs; the result for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.ack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if true = any(v_taken.revived) then
        for i in 1..cardinality(v_taken.positions) loop
            if v_taken.revived[i] then
                delete from fastpubsub.revived as v
                where
                    v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                    and v.position >= v_taken.positions[i] and v.position <= v_taken.last_positions[i];
            end if;
        end loop;
    end if;
    return v_taken.outcomes;
end;
$$;

-- functions/ack_messages_2.sql
drop function fastpubsub.ack_messages_2;

-- functions/add_settlement.sql
drop function fastpubsub.add_settlement;

-- functions/begin_call.sql
-- The first statement of every procedure that writes. A session cannot weaken these settings: they hold to the end of the transaction.
create or replace function fastpubsub.begin_call(p_durable boolean) returns void
language plpgsql as $$
begin
    -- A snapshot older than the lock would not see what the lock's last holder committed.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = '25000',
            message = 'fastpubsub needs the isolation level read committed, not ' || current_setting('transaction_isolation');
    end if;
    perform set_config('lock_timeout', coalesce(nullif(current_setting('fastpubsub.lock_timeout', true), ''), '2s'), true);
    if not p_durable then
        perform set_config('synchronous_commit', 'off', true);
    elsif current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end;
$$;

-- functions/begin_subscription.sql
drop function fastpubsub.begin_subscription;

-- functions/browse_messages.sql
-- Looks at messages without a lease or a lock: all of a topic (p_state 'all'), or those of a subscription that are 'ahead', 'leased',
-- 'waiting' or 'dead', from p_position or p_time on. They come by position; the waiting ones by the time at which they are due, which is
-- their p_time. Backwards, which only 'all' can, come those before, the newest first. The number of rows looked at, the time, and the bytes
-- of what is returned (the first always comes) are bounded. is_found says what p_search_in, p_name and p_values find. `at` is a deadline, a
-- due time or a time of death, `note` a consumer or a reason, `since` when a message was leased.
--
-- The last row has no created_at. It says how many messages were looked at, and where this ended: at the position, and the due time, that
-- comes next, null at the end. `other_side` is where 'all' began, null when nothing is on its other side.
create or replace function fastpubsub.browse_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_state text,
    p_position bigint,
    p_time timestamptz,
    p_backwards boolean,
    p_limit integer,
    p_max_bytes bigint,
    p_with_content boolean,
    p_search_in text default null,
    p_name text default null,
    p_values text [] default null,
    p_rows integer default 10000,
    p_milliseconds integer default 250
) returns table (
    message_position bigint,
    created_at timestamptz,
    attempts integer,
    at timestamptz,
    note text,
    since timestamptz,
    payload json,
    attributes jsonb,
    looked_at integer,
    other_side bigint
)
language plpgsql stable
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
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_from bigint := case
        when p_time is null or p_state = 'waiting' then p_position else fastpubsub.position_before(p_topic_key, p_time) + 1
    end;
    v_cursor record;
    v_path jsonpath;
    v_messages refcursor;
    v_message record;
    v_found integer := 0;
    v_bytes bigint := 0;
begin
    if p_subscription_key is null then
        perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    else
        select c.position, c.retry_due_at, c.retry_position, u.filter_path into v_cursor
        from fastpubsub.claims as c
        inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = 'there is no such topic or subscription';
    end if;

    if p_state = 'leased' then
        open v_messages for
        select p.position, m.created_at, l.attempts, l.expires_at as at, l.consumer_id as note, l.leased_at as since, m.payload, m.attributes
        from fastpubsub.leases as l
        cross join lateral generate_series(greatest(l.position, v_from), l.last_position) as p (position)
        cross join lateral (
            select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            union all
            select v.created_at, v.payload, v.attributes from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p.position
            limit 1
        ) as m
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position > coalesce(v_from, 0) - 100
        order by l.position, p.position;
    elsif p_state = 'waiting' then
        open v_messages for
        select r.position, m.created_at, r.attempts, r.due_at as at, r.reason as note, null::timestamptz as since, m.payload, m.attributes
        from fastpubsub.retries as r
        cross join lateral (
            select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = r.position
            union all
            select v.created_at, v.payload, v.attributes from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
            limit 1
        ) as m
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and (r.due_at, r.position) >= (coalesce(p_time, '-infinity'), coalesce(p_position, 0))
        order by r.due_at, r.position;
    elsif p_state = 'dead' then
        open v_messages for
        select d.position, d.created_at, d.attempts, d.died_at as at, d.reason as note, null::timestamptz as since, d.payload, d.attributes
        from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position >= coalesce(v_from, 0)
        order by d.position;
    else
        if p_state = 'ahead' then
            v_path := v_cursor.filter_path;
            v_from := greatest(v_from, v_cursor.position + 1);
        else
            -- What was trimmed may still lie before the first message, for vacuum.
            select greatest(
                least(case when p_backwards then v_from else coalesce(v_from, 0) end, l.last + 1),
                fastpubsub.first_position(p_topic_key, l.last)
            ) into v_from
            from fastpubsub.last_position(p_topic_key) as l (last);
            select v_from into browse_messages.other_side from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = case when p_backwards then v_from else v_from - 1 end;
        end if;
        if p_backwards then
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes
            from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position < v_from
            order by m.position desc;
        else
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes
            from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position >= v_from
            order by m.position;
        end if;
    end if;

    looked_at := 0;
    loop
        fetch v_messages into v_message;
        exit when not found or v_found = p_limit or looked_at = p_rows or (looked_at > 0 and clock_timestamp() >= v_until);
        v_bytes := v_bytes + pg_column_size(v_message.payload) + coalesce(pg_column_size(v_message.attributes), 0);
        exit when v_found > 0 and v_bytes > p_max_bytes and p_with_content;
        looked_at := looked_at + 1;
        if
            (v_path is null and p_search_in is null)
            or fastpubsub.is_found(v_message.payload, v_message.attributes, v_path, p_search_in, p_name, p_values)
        then
            v_found := v_found + 1;
            message_position := v_message.position;
            created_at := v_message.created_at;
            attempts := v_message.attempts;
            at := v_message.at;
            note := v_message.note;
            since := v_message.since;
            payload := case when p_with_content then v_message.payload end;
            attributes := case when p_with_content then v_message.attributes end;
            return next;
        end if;
    end loop;
    message_position := v_message.position;
    at := v_message.at;
    created_at := null;
    payload := null;
    attributes := null;
    return next;
end;
$$;

-- functions/browse_messages_2.sql
drop function fastpubsub.browse_messages_2;

-- functions/bucket_messages.sql
drop function fastpubsub.bucket_messages;

-- functions/bucket_refills_at.sql
drop function fastpubsub.bucket_refills_at;

-- functions/but_values.sql
-- Returns what `anything-but` negates: each of its scalars, or each of the texts of its operator as an object of their own.
create or replace function fastpubsub.but_values(p_operand json) returns setof json
language plpgsql immutable as $$
declare
    v_operator text;
    v_operand json := p_operand;
begin
    if json_typeof(p_operand) = 'object' and (select count(*) from json_each(p_operand)) = 1 then
        select o.key, o.value into v_operator, v_operand from json_each(p_operand) as o;
    end if;
    if json_typeof(v_operand) <> 'array' then
        v_operand := json_build_array(v_operand);
    end if;
    if
        json_array_length(v_operand) = 0 or v_operator not in ('prefix', 'suffix', 'equals-ignore-case', 'wildcard')
        or exists (
            select from json_array_elements(v_operand) as e (value)
            where json_typeof(e.value) in ('array', 'object') or (v_operator is not null and json_typeof(e.value) <> 'string')
        )
    then
        raise exception using
            errcode = 'FP422', message = format('"anything-but" does not take %s', left(p_operand::text, 100));
    end if;
    return query
    select case when v_operator is null then e.value else json_build_object(v_operator, e.value) end
    from json_array_elements(v_operand) as e (value);
end;
$$;

-- functions/cancel_delayed_message.sql
drop function fastpubsub.cancel_delayed_message;

-- functions/cancel_redrive.sql
-- Ends a redrive that runs; one that has ended stays as it is. Returns whether there is such a redrive.
create or replace function fastpubsub.cancel_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint
) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    update fastpubsub.redrives as r set state = 'cancelled', ended_at = clock_timestamp()
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key
        and r.state = 'running';
    return found or exists (
        select from fastpubsub.redrives as r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key
    );
end;
$$;

-- functions/check_on_full.sql
drop function fastpubsub.check_on_full;

-- functions/claim_in_order.sql
drop function fastpubsub.claim_in_order;

-- functions/claim_messages.sql
-- Leases up to sum(p_limits) messages to the waiting consumers: the first p_limits[1] to p_consumer_ids[1], and so on. Due retries come
-- first, then the log after the cursor. A crash may lose a claim: then its messages are ahead again, and `token` makes the ack ids of the
-- consumer stale. `scanned` and `last` tell an empty answer from one that ran out of its share of time. A subscription that is `paused`
-- hands out nothing.
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
    out unreadable_created_at timestamptz [],
    out lease_seconds integer,
    out filtered bigint,
    out paused boolean
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
    v_ends bigint [];
    v_log record;
    v_from_log integer := 0;
    v_before bigint;
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
    if v_cursor.position is null or (claim_messages.last = v_cursor.position and not v_cursor.is_due) then
        paused := fastpubsub.is_paused(p_topic_key, p_subscription_key);
        return;
    end if;

    perform fastpubsub.begin_call(false);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key, true);
    paused := v_settings.topic_key is null;
    if claim_messages.paused then
        return;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
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
    last := greatest(v_cursor.last, v_cursor.position);
    v_before := v_cursor.position;
    if cardinality(p_limits) = 1 then
        v_ends := p_limits;
    else
        select array_agg(l.sum) into v_ends
        from (select sum(u.size) over (order by u.ordinal) from unnest(p_limits) with ordinality as u (size, ordinal)) as l;
    end if;
    v_limit := v_ends[cardinality(v_ends)];

    positions := '{}';
    if v_cursor.is_due then
        select r.positions, r.attempts, r.created_at, r.payloads, r.attributes, r.revived, r.due_at, r.size
        into
            claim_messages.positions, claim_messages.attempts, claim_messages.created_at, claim_messages.payloads,
            claim_messages.attributes, v_revived, v_cursor.retry_due_at, v_bytes
        from fastpubsub.take_due_retries(
            p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position, v_limit, p_max_bytes, v_now
        ) as r;
        v_cursor.retry_position := claim_messages.positions[cardinality(claim_messages.positions)];
        v_limit := v_limit - cardinality(claim_messages.positions);
    end if;

    if v_limit > 0 and v_bytes < p_max_bytes and v_cursor.position < last then
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
            unreadable := v_log.unreadable;
            unreadable_created_at := v_log.unreadable_created_at;
        end if;
        v_from_log := coalesce(cardinality(v_log.positions), 0);
        if v_from_log > 0 then
            positions := claim_messages.positions || v_log.positions;
            attempts := claim_messages.attempts || array_fill(1, array[v_from_log]);
            created_at := claim_messages.created_at || v_log.created_at;
            payloads := claim_messages.payloads || v_log.payloads;
            attributes := claim_messages.attributes || v_log.attributes;
            v_revived := v_revived || array_fill(false, array[v_from_log]);
        end if;
    end if;
    scanned := v_cursor.position;
    -- Positions are dense: what the cursor passed and nobody gets did not match.
    filtered := v_cursor.position - v_before - v_from_log;

    if cardinality(claim_messages.positions) > 0 then
        v_random := gen_random_uuid()::text;
        token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
        lease_seconds := v_settings.ack_deadline_seconds;
        expires_at := v_now + make_interval(secs => v_settings.ack_deadline_seconds);
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.first_position, r.last_position, claim_messages.token, v_now,
            claim_messages.expires_at, r.attempts, r.revived, p_consumer_ids[r.consumer]
        from fastpubsub.lease_runs(claim_messages.positions, claim_messages.attempts, v_revived, v_ends) as r;
    end if;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, v_cursor.position, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_from_log, v_cursor.purged, v_cursor.dropped, v_cursor.filtered + claim_messages.filtered
    );
end;
$$;

-- functions/claim_messages_2.sql
drop function fastpubsub.claim_messages_2;

-- functions/compile_filter.sql
-- Turns a filter into a strict jsonpath (lax would look inside arrays), or into null for a filter that every message passes. Its variable
-- `$attributes` has those of the message; passes_filter puts it to one.
create or replace function fastpubsub.compile_filter(p_filter json) returns jsonpath
language plpgsql immutable as $$
declare
    v_compiled record;
begin
    if p_filter is null or json_typeof(p_filter) = 'null' or p_filter::text ~ '^\s*{\s*}\s*$' then
        return null;
    end if;
    if json_typeof(p_filter) <> 'object' then
        raise exception using errcode = 'FP422', message = 'a filter must be an object that maps field names to lists of values';
    end if;
    v_compiled := fastpubsub.filter_condition(p_filter, 1, true);
    if v_compiled.fields > 100 or v_compiled.compared > 1000 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 100 fields and 1000 values';
    end if;
    -- Of a filter on nothing but attributes, payloads need not be read.
    if v_compiled.attributes is not null and (select count(*) from json_object_keys(p_filter)) = 1 then
        return ('strict $attributes ? ' || v_compiled.attributes)::jsonpath;
    end if;
    return ('strict $ ? (' || v_compiled.condition || ')')::jsonpath;
end;
$$;

-- functions/continue_turn.sql
drop function fastpubsub.continue_turn;

-- functions/count_put_aside.sql
drop function fastpubsub.count_put_aside;

-- functions/create_redrive.sql
-- Begins to reprocess or purge the dead letters that match. It leaves those alone that die later, so a message that dies again stays dead.
-- The last p_keep ended redrives of the subscription are remembered.
create or replace function fastpubsub.create_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_action text,
    p_reason text,
    p_died_after timestamptz,
    p_died_before timestamptz,
    p_per_second integer,
    p_max_running integer,
    p_keep integer,
    p_now timestamptz default null
) returns setof fastpubsub.redrives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_died_before timestamptz := least(p_died_before, v_now);
    v_matched bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    -- Before the lock, because it may take a while.
    select count(*) into v_matched
    from fastpubsub.dead_letters as d
    where
        d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
        and (p_reason is null or d.reason = p_reason)
        and (p_died_after is null or d.died_at >= p_died_after) and d.died_at < v_died_before;
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    if (
        select count(*) >= p_max_running from fastpubsub.redrives as r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.state = 'running'
    ) then
        raise exception using
            errcode = 'FP409',
            message = format('%s redrives of the subscription are running: wait for one, or cancel it', p_max_running);
    end if;
    delete from fastpubsub.redrives as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.state <> 'running'
        and r.redrive_key <= (
            select o.redrive_key from fastpubsub.redrives as o
            where o.topic_key = p_topic_key and o.subscription_key = p_subscription_key and o.state <> 'running'
            order by o.redrive_key desc
            offset p_keep
            limit 1
        );
    return query
    insert into fastpubsub.redrives as r (
        topic_key, subscription_key, action, reason, died_after, died_before, per_second, matched, stepped_at, created_at
    )
    values (
        p_topic_key, p_subscription_key, p_action, p_reason, p_died_after, v_died_before, p_per_second, v_matched, v_now, v_now
    )
    returning r.*;
end;
$$;

-- functions/create_redrive_2.sql
drop function fastpubsub.create_redrive_2;

-- functions/create_schedule.sql
drop function fastpubsub.create_schedule;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;
-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
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
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    -- Waits for publishers, so that "latest" comes after every confirmed message, and for a deletion of the topic.
    select h.topic_key into create_subscription.topic_key
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = p_topic_id
    for no key update of h;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_topic_id);
    end if;
    insert into fastpubsub.subscriptions as s (topic_key, id, filter, created_at)
    values (create_subscription.topic_key, p_id, case when v_path is not null then p_filter end, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning s.subscription_key, s.created_at into create_subscription.subscription_key, create_subscription.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('subscription "%s" already exists', p_id);
    end if;
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
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds
    );
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    ) values (create_subscription.topic_key, create_subscription.subscription_key, 1, v_position, '-infinity', 0, 0, 0, 0, 0);
    perform fastpubsub.remember_filter(
        create_subscription.topic_key, create_subscription.subscription_key, v_position + 1, case when v_path is not null then p_filter end
    );
end;
$$;

-- functions/cut_leases.sql
drop function fastpubsub.cut_leases;
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
    out outcomes smallint []
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
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, v_lease.token, v_lease.leased_at, v_lease.expires_at,
            v_lease.attempts, v_lease.revived, v_lease.consumer_id
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
    end loop;
    ordinals := v_ordinals;
end;
$$;

-- functions/deciding_field.sql
drop function fastpubsub.deciding_field;
-- The first field of the filter that keeps a message out. Null for a message that passes. `actual` is the value that the payload has
-- there, when it is short enough to be shown, `actual_bytes` its size, null for none; `similar_field` is a name that differs only in case.
-- A payload that cannot be read as jsonb is not `is_readable`, and passes no filter.
create or replace function fastpubsub.deciding_field(
    p_payload json,
    p_attributes jsonb,
    p_filter json,
    out field text,
    out expected json,
    out actual json,
    out actual_bytes integer,
    out similar_field text,
    out is_readable boolean
)
language plpgsql immutable
as $$
#variable_conflict use_column
declare
    c_shown_bytes constant integer := 1024;
    v_field record;
begin
    is_readable := true;
    if p_filter is null then
        return;
    end if;
    for v_field in select f.key, f.value from json_each(p_filter) as f loop
        if
            not fastpubsub.passes_filter(
                p_payload, p_attributes, fastpubsub.compile_filter(json_build_object(v_field.key, v_field.value))
            )
        then
            field := v_field.key;
            expected := v_field.value;
            if v_field.key = '$attributes' and json_typeof(v_field.value) = 'object' then
                actual := p_attributes;
            else
                actual := p_payload -> v_field.key;
            end if;
            actual_bytes := octet_length(deciding_field.actual::text);
            if deciding_field.actual_bytes > c_shown_bytes then
                actual := null;
            elsif deciding_field.actual_bytes is null and json_typeof(p_payload) = 'object' then
                select k.name into deciding_field.similar_field
                from json_object_keys(p_payload) as k (name)
                where lower(k.name) = lower(v_field.key) limit 1;
            end if;
            return;
        end if;
    end loop;
exception
    when data_exception or program_limit_exceeded then
        is_readable := false;
end;
$$;

-- functions/delayed_floor.sql
drop function fastpubsub.delayed_floor;

-- functions/delete_schedule.sql
drop function fastpubsub.delete_schedule;

-- functions/delete_topic.sql
-- Takes constant time in the number of messages: it deletes the names and the locked rows, and records the rest in `purges`.
create or replace function fastpubsub.delete_topic(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    delete from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    perform from fastpubsub.cursors as c where c.topic_key = v_topic_key order by c.subscription_key for update;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key;
    delete from fastpubsub.subscriptions as s where s.topic_key = v_topic_key;
    delete from fastpubsub.topics as t where t.topic_key = v_topic_key;
    insert into fastpubsub.purges (topic_key) values (v_topic_key);
end;
$$;

-- functions/drop_backlog.sql
drop function fastpubsub.drop_backlog;

-- functions/due_time.sql
drop function fastpubsub.due_time;

-- functions/empty_purges.sql
-- Deletes up to p_limit rows per table of one deleted topic or subscription. Returns how many rows it deleted, or null when there was
-- nothing left to delete.
create or replace function fastpubsub.empty_purges(p_limit integer default 5000) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_purge fastpubsub.purges;
    v_table text;
    v_rows bigint;
    v_deleted bigint := 0;
begin
    perform fastpubsub.begin_call(false);
    select p.* into v_purge from fastpubsub.purges as p order by p.purge_key limit 1 for update skip locked;
    if not found then
        return null;
    end if;
    foreach v_table in array array ['leases', 'retries', 'dead_letters', 'redrives', 'revived', 'claims', 'filter_history', 'history', 'consumers', 'idempotency_keys', 'messages'] loop
        continue when v_table in ('idempotency_keys', 'messages') and v_purge.subscription_key is not null;
        execute format(
            'delete from fastpubsub.%1$I where ctid = any(array(select t.ctid from fastpubsub.%1$I as t where t.topic_key = $1%2$s limit $3))',
            v_table, case when v_purge.subscription_key is not null then ' and t.subscription_key = $2' else '' end
        ) using v_purge.topic_key, v_purge.subscription_key, p_limit;
        get diagnostics v_rows = row_count;
        v_deleted := v_deleted + v_rows;
    end loop;
    if v_deleted = 0 then
        delete from fastpubsub.purges as p where p.purge_key = v_purge.purge_key;
    end if;
    return v_deleted;
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
begin
    with ended as (
        delete from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        returning l.position, l.last_position
    )
    select coalesce(sum(e.last_position - e.position + 1), 0) into v_leased from ended as e;
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position);
    get diagnostics v_waiting = row_count;
    return v_leased + v_waiting;
end;
$$;

-- functions/end_hold.sql
drop function fastpubsub.end_hold;

-- functions/expire_messages.sql
drop function fastpubsub.expire_messages;

-- functions/expire_subscription.sql
drop function fastpubsub.expire_subscription;

-- functions/expires_at.sql
drop function fastpubsub.expires_at;

-- functions/explain_in_subscriptions.sql
-- explain_message for the subscriptions of the topic, ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.explain_in_subscriptions(
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
    leased_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.id, e.*
    from (
        select s.id, s.subscription_key from fastpubsub.subscriptions as s
        where s.topic_key = p_topic_key and (p_ids is null or s.id = any(p_ids))
        order by s.id collate "C"
        offset p_offset
        limit p_limit
    ) as s
    cross join lateral fastpubsub.explain_message(p_topic_key, s.subscription_key, p_position, 1000) as e
    order by s.id collate "C";
end;
$$;

-- functions/explain_in_subscriptions_2.sql
drop function fastpubsub.explain_in_subscriptions_2;

-- functions/explain_message.sql
-- What became of one message in one subscription, and why: `state` is ahead, leased, waiting, dead, settled, filtered, skipped, purged,
-- before_subscription, trimmed or unknown. Nothing is locked or written; stable, so that everything is seen at one moment.
-- `before`: messages that come first, at most p_look of them judged by the filter; `before_is_estimated` beyond.
create or replace function fastpubsub.explain_message(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_look integer default 10000,
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
    out leased_at timestamptz
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
begin
    select c.position, c.retry_due_at, c.retry_position, s.filter, u.filter_path, u.paused_at into v_cursor
    from fastpubsub.claims as c
    inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
    inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    filter := v_cursor.filter;

    select 'leased', l.attempts, l.consumer_id, l.expires_at, l.leased_at
    into explain_message.state, explain_message.attempts, explain_message.consumer_id, explain_message.until, explain_message.leased_at
    from (
        select l.* from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position <= p_position and l.position > p_position - 100
        order by l.position desc limit 1
    ) as l
    where l.last_position >= p_position;
    if explain_message.state is not null then
        return;
    end if;
    select 'waiting', r.attempts, r.due_at, r.reason
    into explain_message.state, explain_message.attempts, explain_message.until, explain_message.reason
    from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = p_position;
    if explain_message.state is not null then
        paused_at := v_cursor.paused_at;
        return;
    end if;
    select 'dead', d.attempts, d.died_at, d.reason
    into explain_message.state, explain_message.attempts, explain_message.died_at, explain_message.reason
    from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p_position;
    if explain_message.state is not null then
        return;
    end if;

    select m.payload, m.attributes into v_payload, v_attributes
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if p_position <= v_cursor.position then
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
    if explain_message.state not in ('ahead', 'settled') then
        return;
    end if;
    select d.field, d.expected, d.actual, d.actual_bytes, d.similar_field, d.is_readable
    into
        explain_message.field, explain_message.expected, explain_message.actual, explain_message.actual_bytes,
        explain_message.similar_field, explain_message.is_readable
    from fastpubsub.deciding_field(v_payload, v_attributes, explain_message.filter) as d;
    if explain_message.field is not null or not explain_message.is_readable then
        state := 'filtered';
    elsif explain_message.state = 'ahead' then
        paused_at := v_cursor.paused_at;
        select c.messages, c.is_estimated into explain_message.before, explain_message.before_is_estimated
        from fastpubsub.count_ahead(p_topic_key, v_cursor.position, p_position - 1, v_cursor.filter_path, p_look) as c;
    end if;
end;
$$;

-- functions/explain_message_2.sql
drop function fastpubsub.explain_message_2;

-- functions/extend_leases.sql
-- Moves the deadline of held deliveries: that of each run of ids to its p_extend_seconds from now. The result for each id is 1 (still
-- held), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.extend_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_extend_seconds integer [],
    p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id
    )
    select
        p_topic_key, p_subscription_key, min(t.position), max(t.last_position), t.token, t.leased_at,
        coalesce(p_now, clock_timestamp()) + make_interval(secs => p_extend_seconds[t.run]), t.attempts, t.revived, t.consumer_id
    from (
        select
            t.*, t.position - sum(t.last_position - t.position + 1)
                over (partition by t.token, t.run, t.attempts, t.revived, t.consumer_id order by t.position rows unbounded preceding)
            + (t.last_position - t.position) as island,
            -- Single positions were cut out of leases: join them again, up to the longest that a lease can be.
            case when t.position = t.last_position then t.position / 100 else - t.position end as part
        from unnest(
            v_taken.positions, v_taken.last_positions, v_taken.tokens, v_taken.leased_at, v_taken.attempts, v_taken.revived, v_taken.consumer_ids,
            v_taken.ordinals
        ) as t (position, last_position, token, leased_at, attempts, revived, consumer_id, run)
    ) as t
    group by t.token, t.leased_at, t.run, t.attempts, t.revived, t.consumer_id, t.island, t.part
    order by min(t.position);
    return v_taken.outcomes;
end;
$$;

-- functions/failures_of.sql
drop function fastpubsub.failures_of;

-- functions/filter_condition.sql
drop function fastpubsub.filter_condition;
-- Returns the condition of a filter on the object `@`, which p_of_message says is a whole payload, and how many fields and values it has.
-- `attributes` is the part that `$attributes` makes. It calls itself for nested objects and for
-- the alternatives of `$or`, which is a field like any other when it holds no objects. Each name is written once, so the result is
-- about as long as the filter. fastpubsub/filters.py refuses the same before, and explains it.
create or replace function fastpubsub.filter_condition(
    p_filter json,
    p_depth integer,
    p_of_message boolean,
    out condition text,
    out attributes text,
    out fields integer,
    out compared integer
)
language plpgsql immutable as $$
#variable_conflict use_column
declare
    v_field record;
    v_part record;
    v_nested record;
    v_name text;
    v_names text [] := '{}';
    v_all text [] := '{}';
    v_any text [];
    v_values text [];
begin
    fields := 0;
    compared := 0;
    if p_depth > 10 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 10 levels';
    end if;
    for v_field in select f.key, f.value, json_typeof(f.value) as type from json_each(p_filter) as f loop
        v_name := to_json(v_field.key)::text;
        if v_field.key = any(v_names) then
            raise exception using errcode = 'FP422', message = format('the filter names the field %s twice', v_name);
        end if;
        v_names := v_names || v_field.key;
        fields := filter_condition.fields + 1;
        if v_field.type = 'object' then
            v_nested := fastpubsub.filter_condition(v_field.value, p_depth + 1, false);
            if p_of_message and v_field.key = '$attributes' then
                attributes := v_nested.condition;
                v_all := v_all || format('exists($attributes ? %s)', v_nested.condition);
            else
                v_all := v_all || format('exists(@.%s ? %s)', v_name, v_nested.condition);
            end if;
            fields := filter_condition.fields + v_nested.fields;
            compared := filter_condition.compared + v_nested.compared;
            continue;
        end if;
        if v_field.type <> 'array' or json_array_length(v_field.value) = 0 then
            raise exception using
                errcode = 'FP422',
                message = format('the filter of the field %s must be a list of at least one value', v_name);
        end if;
        v_any := '{}';
        v_values := '{}';
        for v_part in select e.value, json_typeof(e.value) as type from json_array_elements(v_field.value) as e loop
            compared := filter_condition.compared + 1;
            if v_field.key = '$or' and v_part.type = 'object' then
                v_nested := fastpubsub.filter_condition(v_part.value, p_depth + 1, p_of_message);
                v_any := v_any || v_nested.condition;
                fields := filter_condition.fields + v_nested.fields;
                compared := filter_condition.compared + v_nested.compared;
            elsif v_part.type = 'object' and v_part.value::jsonb = '{"exists": true}' then
                v_any := v_any || format('exists(@.%s)', v_name);
            elsif v_part.type = 'object' and v_part.value::jsonb = '{"exists": false}' then
                v_any := v_any || format('(exists(@.%s)) is unknown', v_name);
            else
                v_values := v_values || fastpubsub.value_condition(v_part.value);
                compared := filter_condition.compared + case
                    when v_part.type = 'object' and json_typeof(v_part.value -> 'anything-but') = 'array'
                    then json_array_length(v_part.value -> 'anything-but') else 0
                end;
            end if;
        end loop;
        if cardinality(v_values) > 0 then
            v_any := v_any || format('exists(@.%s ? (%s))', v_name, array_to_string(v_values, ' || '));
        end if;
        v_all := v_all || format('(%s)', array_to_string(v_any, ' || '));
    end loop;
    if cardinality(v_all) = 0 then
        raise exception using errcode = 'FP422', message = 'an object of a filter must name at least one field';
    end if;
    condition := array_to_string(v_all, ' && ');
    if p_depth > 1 then
        condition := format('(%s)', filter_condition.condition);
    end if;
end;
$$;

-- functions/find_message.sql
-- A message of a topic, without a lease; of one that was trimmed the copy that a dead letter has. `last` is the newest position; a message
-- at or below it without a payload was trimmed.
create or replace function fastpubsub.find_message(
    p_topic_key bigint,
    p_position bigint,
    out topic_id text,
    out last bigint,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    select t.id into find_message.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    select m.created_at, m.payload, m.attributes into find_message.created_at, find_message.payload, find_message.attributes
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if not found then
        select d.created_at, d.payload, d.attributes into find_message.created_at, find_message.payload, find_message.attributes
        from fastpubsub.subscriptions as s
        inner join fastpubsub.dead_letters as d on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.topic_key = p_topic_key and d.position = p_position
        limit 1;
    end if;
end;
$$;

-- functions/find_message_2.sql
drop function fastpubsub.find_message_2;

-- functions/fire_schedule.sql
drop function fastpubsub.fire_schedule;

-- functions/forget_failures.sql
drop function fastpubsub.forget_failures;

-- functions/forget_old_failures.sql
drop function fastpubsub.forget_old_failures;

-- functions/forget_process.sql
drop function fastpubsub.forget_process;

-- functions/fork_subscription.sql
drop function fastpubsub.fork_subscription;

-- functions/free_keys.sql
drop function fastpubsub.free_keys;

-- functions/fullest_subscription.sql
drop function fastpubsub.fullest_subscription;

-- functions/get_delayed_message.sql
drop function fastpubsub.get_delayed_message;

-- functions/get_push_status.sql
drop function fastpubsub.get_push_status;

-- functions/get_topic.sql
create or replace function fastpubsub.get_topic(
    p_id text,
    out topic_key bigint,
    out id text,
    out retention_seconds bigint,
    out created_at timestamptz,
    out schema json
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select t.topic_key, t.id, h.retention_seconds, t.created_at, h.schema
    into get_topic.topic_key, get_topic.id, get_topic.retention_seconds, get_topic.created_at, get_topic.schema
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/has_room.sql
drop function fastpubsub.has_room;

-- functions/hold_endpoints.sql
drop function fastpubsub.hold_endpoints;

-- functions/inspect_delayed.sql
drop function fastpubsub.inspect_delayed;

-- functions/inspect_kept_messages.sql
-- Returns the subscriptions of list_kept_messages that keep anything beyond the retention, each with the oldest message that it needs, the
-- state of that message, and what is kept because of it. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_kept_messages(p_limit integer, p_retention_seconds bigint, p_now timestamptz default null)
returns table (
    topic_key bigint,
    topic_id text,
    subscription_id text,
    message_position bigint,
    created_at timestamptz,
    state text,
    messages bigint,
    bytes bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.topic_key, n.topic_id, n.subscription_id, k.kept_position, k.created_at, k.state, k.messages, k.bytes
    from fastpubsub.list_kept_messages(p_limit) as n
    inner join fastpubsub.subscriptions as s on n.subscription_id = s.id
    cross join lateral fastpubsub.subscription_metrics(s.topic_key, s.subscription_key, 1) as m
    cross join lateral fastpubsub.kept_log(
        s.topic_key, m.cursor_position + 1, m.leased_position, m.waiting_position, p_retention_seconds, p_now
    ) as k
    where k.messages > 0
    order by k.bytes desc;
end;
$$;

-- functions/inspect_leases.sql
-- Returns the lease with the earliest deadline, its consumer and its deadline; no row when there are no leases. For `fastpubsub doctor`;
-- writes nothing.
create or replace function fastpubsub.inspect_leases()
returns table (subscription_id text, consumer_id text, expires_at timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.id, l.consumer_id, l.expires_at
    from (
        select o.subscription_key, o.consumer_id, o.expires_at from fastpubsub.leases as o
        order by o.expires_at
        limit 1
    ) as l
    inner join fastpubsub.subscriptions as s on s.subscription_key = l.subscription_key;
end;
$$;

-- functions/inspect_outbox.sql
-- Counts the rows that wait in the outbox, up to p_limit, and returns the key of the first one: as long as it stays the same, no server
-- relays. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_outbox(p_limit integer, out waiting bigint, out first_key text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    select count(*), (array_agg(o.transaction_id || '/' || o.ordinal))[1] into waiting, first_key
    from (
        select a.transaction_id, a.ordinal from fastpubsub.outbox as a
        order by a.transaction_id, a.ordinal
        limit p_limit
    ) as o;
end;
$$;

-- functions/inspect_processes.sql
drop function fastpubsub.inspect_processes;

-- functions/inspect_schedules.sql
drop function fastpubsub.inspect_schedules;

-- functions/is_about_message.sql
drop function fastpubsub.is_about_message;

-- functions/is_being_settled.sql
drop function fastpubsub.is_being_settled;

-- functions/is_found.sql
drop function fastpubsub.is_found;
-- Whether a message passes the filter p_path and has what is searched for: one of p_values in the first mebibyte of its payload ('text';
-- ASCII letters have no case), as its top-level field p_name ('payload'), or as its attribute p_name ('attributes'). A payload that cannot
-- be read as jsonb passes no filter and has no field.
create or replace function fastpubsub.is_found(
    p_payload json,
    p_attributes jsonb,
    p_path jsonpath,
    p_search_in text,
    p_name text,
    p_values text []
) returns boolean
language plpgsql immutable
as $$
declare
    c_searched_characters constant integer := 1048576;
    v_text text;
begin
    if p_path is not null and not fastpubsub.passes_filter(p_payload, p_attributes, p_path) then
        return false;
    end if;
    case p_search_in
        when 'text' then
            v_text := lower(substr(p_payload::text, 1, c_searched_characters) collate "C");
            return exists (select from unnest(p_values) as v (value) where strpos(v_text, lower(v.value collate "C")) > 0);
        when 'payload' then
            return coalesce(p_payload::jsonb -> p_name = any(p_values::jsonb []), false);
        when 'attributes' then
            return coalesce(p_attributes ->> p_name = any(p_values), false);
        else
            return true;
    end case;
exception
    when data_exception or program_limit_exceeded then
        return false;
end;
$$;

-- functions/is_holding.sql
drop function fastpubsub.is_holding;

-- functions/is_paused.sql
drop function fastpubsub.is_paused;
-- Whether a subscription, which must be there, hands out nothing at the moment.
create or replace function fastpubsub.is_paused(p_topic_key bigint, p_subscription_key bigint) returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_is_paused boolean;
begin
    select c.paused_at is not null into v_is_paused from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    return v_is_paused;
end;
$$;

-- functions/judge_last_messages.sql
-- Judges the last p_last messages of a topic by a filter, the newest first, in p_milliseconds. Returns at most p_examples of those that
-- pass and of those that do not, these with the field that decides; payloads come up to p_max_bytes together, and only p_with_content. The
-- last row has no position: it says how many messages were looked at, and how many passed.
create or replace function fastpubsub.judge_last_messages(
    p_topic_key bigint,
    p_filter json,
    p_last integer,
    p_max_bytes bigint,
    p_with_content boolean,
    p_examples integer default 5,
    p_milliseconds integer default 500
) returns table (
    message_position bigint,
    created_at timestamptz,
    payload json,
    passes boolean,
    field text,
    expected json,
    actual json,
    actual_bytes integer,
    similar_field text,
    is_readable boolean,
    looked_at integer,
    passed integer
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_message record;
    v_field record;
    v_bytes bigint := 0;
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    looked_at := 0;
    passed := 0;
    for v_message in
        select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key
        order by m.position desc
        limit p_last
    loop
        exit when looked_at > 0 and clock_timestamp() >= v_until;
        looked_at := looked_at + 1;
        passes := v_path is null or fastpubsub.is_found(v_message.payload, v_message.attributes, v_path, null, null, null);
        passed := passed + passes::integer;
        if (case when passes then passed else looked_at - passed end) <= p_examples then
            select d.* into v_field
            from fastpubsub.deciding_field(v_message.payload, v_message.attributes, case when not passes then p_filter end) as d;
            message_position := v_message.position;
            created_at := v_message.created_at;
            field := v_field.field;
            expected := v_field.expected;
            actual := v_field.actual;
            actual_bytes := v_field.actual_bytes;
            similar_field := v_field.similar_field;
            is_readable := v_field.is_readable;
            payload := null;
            if p_with_content and v_bytes + pg_column_size(v_message.payload) <= p_max_bytes then
                payload := v_message.payload;
                v_bytes := v_bytes + pg_column_size(v_message.payload);
            end if;
            return next;
        end if;
    end loop;
    message_position := null;
    payload := null;
    return next;
end;
$$;

-- functions/judge_payload.sql
drop function fastpubsub.judge_payload;
-- Whether a message would pass a filter, and which field decides (deciding_field).
create or replace function fastpubsub.judge_payload(
    p_filter json,
    p_payload json,
    p_attributes jsonb,
    out field text,
    out expected json,
    out actual json,
    out actual_bytes integer,
    out similar_field text,
    out is_readable boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select d.* into judge_payload.field, judge_payload.expected, judge_payload.actual, judge_payload.actual_bytes,
        judge_payload.similar_field, judge_payload.is_readable
    from fastpubsub.deciding_field(
        p_payload, p_attributes, case when fastpubsub.compile_filter(p_filter) is not null then p_filter end
    ) as d;
end;
$$;

-- functions/limit_backlog.sql
drop function fastpubsub.limit_backlog;

-- functions/limit_reached.sql
drop function fastpubsub.limit_reached;

-- functions/list_changes.sql
-- Newest first; p_before_key is that of the last one of the page before.
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
as $$
#variable_conflict use_column
begin
    return query
    select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
    from fastpubsub.changes as c
    where
        (p_object is null or c.object = p_object)
        and (p_object_id is null or c.object_id = p_object_id)
        and (p_client_id is null or c.client_id = p_client_id)
        and (p_after is null or c.changed_at >= p_after)
        and (p_before is null or c.changed_at < p_before)
        and (p_before_key is null or c.change_key < p_before_key)
    order by c.change_key desc
    limit p_limit;
end;
$$;

-- functions/list_dead_letters.sql
-- Dead letters, the oldest position first: those after p_after, or all but the first p_offset, which match: p_reason exactly, and died from
-- p_died_after on and before p_died_before; null is any. It looks at p_rows of them, beside those that it skips, and returns up to
-- p_max_bytes, but at least one.
--
-- The last row has no created_at. It says after which position the next page begins, null at the end.
create or replace function fastpubsub.list_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_offset bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_after bigint default null,
    p_reason text default null,
    p_died_after timestamptz default null,
    p_died_before timestamptz default null,
    p_rows integer default 100000
) returns table (
    message_position bigint,
    created_at timestamptz,
    died_at timestamptz,
    attempts integer,
    reason text,
    payload json,
    attributes jsonb
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
    v_positions bigint [];
    v_next bigint;
    v_bytes bigint := 0;
    v_letter record;
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    -- The rows that are looked at are not sorted or stored: this ends when enough are found.
    v_positions := array(
        select d.position
        from (
            select d.position, d.reason, d.died_at from fastpubsub.dead_letters as d
            where
                d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position > coalesce(p_after, 0)
            order by d.position
            limit p_offset + p_rows
        ) as d
        where
            (p_reason is null or d.reason = p_reason)
            and (p_died_after is null or d.died_at >= p_died_after) and (p_died_before is null or d.died_at < p_died_before)
        order by d.position
        offset p_offset
        limit p_limit + 1
    );
    if cardinality(v_positions) > p_limit then
        v_next := v_positions[p_limit];
    else
        select d.position into v_next from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position > coalesce(p_after, 0)
        order by d.position
        offset p_offset + p_rows - 1
        limit 1;
    end if;
    for i in 1..least(cardinality(v_positions), p_limit) loop
        select d.* into v_letter from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_positions[i];
        v_bytes := v_bytes + pg_column_size(v_letter.payload) + coalesce(pg_column_size(v_letter.attributes), 0);
        if i > 1 and v_bytes > p_max_bytes then
            v_next := v_positions[i - 1];
            exit;
        end if;
        message_position := v_letter.position;
        created_at := v_letter.created_at;
        died_at := v_letter.died_at;
        attempts := v_letter.attempts;
        reason := v_letter.reason;
        payload := v_letter.payload;
        attributes := v_letter.attributes;
        return next;
    end loop;
    message_position := v_next;
    created_at := null;
    payload := null;
    attributes := null;
    return next;
end;
$$;

-- functions/list_dead_letters_2.sql
drop function fastpubsub.list_dead_letters_2;

-- functions/list_delayed_messages.sql
drop function fastpubsub.list_delayed_messages;

-- functions/list_due_schedules.sql
drop function fastpubsub.list_due_schedules;

-- functions/list_due_topics.sql
drop function fastpubsub.list_due_topics;

-- functions/list_endpoints.sql
drop function fastpubsub.list_endpoints;

-- functions/list_expired_leases.sql
-- Lists the subscriptions with leases past their deadline, and how many messages those leases hold. Deadlines more than p_look_back_seconds
-- ago are left to earlier passes (null: none are), so that a pass does not walk over rows that others deleted.
create or replace function fastpubsub.list_expired_leases(
    p_look_back_seconds double precision default null,
    p_now timestamptz default null
) returns table (topic_key bigint, subscription_key bigint, subscription_id text, expired bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
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
        from fastpubsub.leases as l
        where l.expires_at > v_floor and l.expires_at <= v_now
        group by l.topic_key, l.subscription_key
    ) as e
    inner join fastpubsub.subscriptions as s on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key;
end;
$$;

-- functions/list_expired_subscriptions.sql
drop function fastpubsub.list_expired_subscriptions;

-- functions/list_flows.sql
-- Returns how many messages came to these subscriptions, and how many were delivered or filtered out, in the first and in the second half
-- of the last p_seconds that are over. It leaves out younger ones: the history does not say what came before they were made.
create or replace function fastpubsub.list_flows(p_ids text [], p_seconds integer default 300, p_now timestamptz default null)
returns table (subscription_id text, came_before bigint, went_before bigint, came bigint, went bigint)
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
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / 5 * 5;
    v_from bigint := v_to - p_seconds;
    v_half bigint := v_to - p_seconds / 2;
begin
    return query
    select
        s.id, coalesce(t.before, 0), coalesce(o.before, 0), coalesce(t.after, 0), coalesce(o.after, 0)
    from unnest(p_ids) as i (id)
    inner join fastpubsub.subscriptions as s on s.id = i.id
    cross join lateral (
        select sum(h.published) filter (where h.at < v_half) as before, sum(h.published) filter (where h.at >= v_half) as after
        from fastpubsub.history as h
        where
            h.topic_key = s.topic_key and h.subscription_key = 0 and h.interval_seconds = 5
            and h.at >= v_from and h.at < v_to
    ) as t
    cross join lateral (
        select
            sum(h.delivered + h.filtered) filter (where h.at < v_half) as before,
            sum(h.delivered + h.filtered) filter (where h.at >= v_half) as after
        from fastpubsub.history as h
        where
            h.topic_key = s.topic_key and h.subscription_key = s.subscription_key and h.interval_seconds = 5
            and h.at >= v_from and h.at < v_to
    ) as o
    where s.created_at < to_timestamp(v_from);
end;
$$;

-- functions/list_full_subscriptions.sql
drop function fastpubsub.list_full_subscriptions;

-- functions/list_history.sql
-- Returns the intervals from p_from to before p_to (Unix time) that are over, each with the sums of topics (`published`) and of
-- subscriptions (the rest); null is all of them. The intervals of 5 seconds last an hour; those of 60 seconds a day.
create or replace function fastpubsub.list_history(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_interval_seconds integer,
    p_from bigint default null,
    p_to bigint default null,
    p_now timestamptz default null
) returns table (
    at bigint,
    published bigint,
    delivered bigint,
    acked bigint,
    nacked bigint,
    rejected bigint,
    expired bigint,
    dead_lettered bigint,
    filtered bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / p_interval_seconds * p_interval_seconds;
    v_from bigint := v_to - case p_interval_seconds when 5 then 3600 else 86400 end;
begin
    v_from := greatest(p_from / p_interval_seconds * p_interval_seconds, v_from);
    v_to := least(p_to, v_to);
    return query
    with
    sources as (
        select t.topic_key, 0::bigint as subscription_key, true as is_topic from fastpubsub.topics as t where t.id = any(p_topic_ids)
        union all
        select 0, 0, true where p_topic_ids is null
        union all
        select s.topic_key, s.subscription_key, false from fastpubsub.subscriptions as s where s.id = any(p_subscription_ids)
        union all
        select 0, 0, false where p_subscription_ids is null
    ),
    counted as (
        select
        h.at / p_interval_seconds * p_interval_seconds as at,
        coalesce(sum(h.published) filter (where s.is_topic), 0)::bigint as published,
        coalesce(sum(h.delivered) filter (where not s.is_topic), 0)::bigint as delivered,
        coalesce(sum(h.acked) filter (where not s.is_topic), 0)::bigint as acked,
        coalesce(sum(h.nacked) filter (where not s.is_topic), 0)::bigint as nacked,
        coalesce(sum(h.rejected) filter (where not s.is_topic), 0)::bigint as rejected,
        coalesce(sum(h.expired) filter (where not s.is_topic), 0)::bigint as expired,
        coalesce(sum(h.dead_lettered) filter (where not s.is_topic), 0)::bigint as dead_lettered,
        coalesce(sum(h.filtered) filter (where not s.is_topic), 0)::bigint as filtered
        from sources as s
        inner join fastpubsub.history as h on s.topic_key = h.topic_key and s.subscription_key = h.subscription_key
        where h.interval_seconds <= p_interval_seconds and h.at >= v_from and h.at < v_to
        group by 1
    )
    select
        g.at, coalesce(c.published, 0), coalesce(c.delivered, 0), coalesce(c.acked, 0), coalesce(c.nacked, 0), coalesce(c.rejected, 0), coalesce(c.expired, 0), coalesce(c.dead_lettered, 0), coalesce(c.filtered, 0)
    from generate_series(v_from, v_to - 1, p_interval_seconds) as g (at)
    left join counted as c on g.at = c.at
    order by g.at;
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
as $$
#variable_conflict use_column
begin
    return query
    select
        t.id,
        s.id,
        fastpubsub.last_position(s.topic_key) - n.position + 1,
        m.created_at,
        h.retention_seconds
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.heads as h on s.topic_key = h.topic_key
    -- A leased or waiting message below it is a reprocessed dead letter with a copy of its own.
    cross join lateral fastpubsub.first_position(s.topic_key, fastpubsub.last_position(s.topic_key)) as f (position)
    cross join lateral (
        select least(
            (
                select c.position + 1 from fastpubsub.claims as c
                where c.topic_key = s.topic_key and c.subscription_key = s.subscription_key
                order by c.sequence desc limit 1
            ),
            (
                select min(l.position) from fastpubsub.leases as l
                where l.topic_key = s.topic_key and l.subscription_key = s.subscription_key and l.position >= f.position
            ),
            (
                select min(r.position) from fastpubsub.retries as r
                where r.topic_key = s.topic_key and r.subscription_key = s.subscription_key and r.position >= f.position
            )
        ) as position
    ) as n
    inner join fastpubsub.messages as m on m.topic_key = s.topic_key and m.position = n.position
    order by 3 desc
    limit p_limit;
end;
$$;

-- functions/list_loads.sql
-- Returns the subscriptions in which something is ahead, leased, waiting or dead, or which are paused, all at once instead of one by one:
-- for looking at the whole server. `behind` is what the log has after the cursor, which for a filter is more than what it passes. p_ids
-- holds the only ids that the caller may see, null for all. The times are those of the oldest message of each state, as far as the log has
-- it, and of the first lease that expires; `retention_seconds` is how long the topic keeps what nobody needs.
create or replace function fastpubsub.list_loads(p_ids text [], p_retention_seconds bigint)
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
    first_expires_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    with
    leased as (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as messages, min(l.position) as first,
            min(l.expires_at) as expires_at
        from fastpubsub.leases as l group by l.topic_key, l.subscription_key
    ),
    waiting as (
        select r.topic_key, r.subscription_key, count(*) as messages, min(r.position) as first
        from fastpubsub.retries as r group by r.topic_key, r.subscription_key
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
        t.retention, c.paused_at, l.expires_at
    from fastpubsub.subscriptions as s
    inner join tops as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    cross join lateral (
        select n.position from fastpubsub.claims as n
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

-- functions/list_loads_2.sql
drop function fastpubsub.list_loads_2;

-- functions/list_push_attempts.sql
drop function fastpubsub.list_push_attempts;

-- functions/list_push_metrics.sql
drop function fastpubsub.list_push_metrics;

-- functions/list_ready_subscriptions.sql
-- Tells waiting consumers which of the subscriptions have something to claim, or are gone (`ready`), in how many seconds the next waiting
-- retry is due, and which are `paused`, and so never ready. Each subscription is named by its place in the arrays; those with nothing to
-- report are left out.
create or replace function fastpubsub.list_ready_subscriptions(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns table (place integer, ready boolean, due_seconds double precision, paused boolean)
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
begin
    return query
    select s.place, s.ready and not s.paused, case when not s.paused then s.due_seconds end, s.paused
    from (
        select
            k.ordinal::integer as place,
            coalesce(c.is_paused, false) as paused,
            c.position is null
            or exists (
                select from fastpubsub.messages as m where m.topic_key = k.topic_key and m.position = c.position + 1
            )
            or exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = k.topic_key and r.subscription_key = k.subscription_key
                    and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
            ) as ready,
            (
                select extract(epoch from r.due_at - v_now)::double precision from fastpubsub.retries as r
                where r.topic_key = k.topic_key and r.subscription_key = k.subscription_key and r.due_at > v_now
                order by r.due_at, r.position
                limit 1
            ) as due_seconds
        from unnest(p_topic_keys, p_subscription_keys) with ordinality as k (topic_key, subscription_key, ordinal)
        left join lateral (
            select n.position, n.retry_due_at, n.retry_position, u.paused_at is not null as is_paused
            from fastpubsub.cursors as u
            cross join lateral (
                select n.position, n.retry_due_at, n.retry_position from fastpubsub.claims as n
                where n.topic_key = u.topic_key and n.subscription_key = u.subscription_key
                order by n.sequence desc
                limit 1
            ) as n
            where u.topic_key = k.topic_key and u.subscription_key = k.subscription_key
        ) as c on true
    ) as s
    where s.ready or s.paused or s.due_seconds is not null;
end;
$$;

-- functions/list_ready_subscriptions_2.sql
drop function fastpubsub.list_ready_subscriptions_2;

-- functions/list_redrives.sql
-- Newest first; with p_redrive_key only that one.
create or replace function fastpubsub.list_redrives(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint default null
) returns setof fastpubsub.redrives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    select r.* from fastpubsub.redrives as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (p_redrive_key is null or r.redrive_key = p_redrive_key)
    order by r.redrive_key desc;
end;
$$;

-- functions/list_redrives_2.sql
drop function fastpubsub.list_redrives_2;

-- functions/list_rhythms.sql
-- Returns of topics that were silent for p_seconds, but published within the last day, and of the named subscriptions that were silent for
-- p_consumer_seconds, in how many minutes of that day something was published, or delivered; the time from the first to the last of them,
-- and the longest pause in it; and since when nothing was. At most p_limit topics, those that fell silent last.
create or replace function fastpubsub.list_rhythms(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_seconds integer default 600,
    p_limit integer default 100,
    p_consumer_seconds integer default 300,
    p_now timestamptz default null
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
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from bigint := floor(extract(epoch from v_now))::bigint - 86400;
begin
    return query
    with
    quiet as (
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
                h.topic_key = s.topic_key and h.subscription_key = s.subscription_key and h.interval_seconds = 5
                and h.at >= floor(extract(epoch from v_now))::bigint - p_consumer_seconds and h.delivered > 0
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
                from fastpubsub.history as h
                where
                    h.topic_key = o.topic_key and h.subscription_key = o.subscription_key and h.interval_seconds in (5, 60)
                    and h.at >= v_from and case when o.subscription_key = 0 then h.published else h.delivered end > 0
                group by h.at / 60
            ) as m
        ) as a
    ) as r
    where r.minutes > 0;
end;
$$;

-- functions/list_schedules.sql
drop function fastpubsub.list_schedules;

-- functions/list_subscription_figures.sql
-- Returns the metrics of the named subscriptions, each judged up to p_look messages by its filter, and per second what happened in them
-- over the last minute.
create or replace function fastpubsub.list_subscription_figures(
    p_ids text [],
    p_look bigint default 200,
    p_now timestamptz default null
) returns table (
    subscription_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    filtered bigint,
    estimated boolean,
    paused boolean,
    oldest_ahead_seconds double precision,
    oldest_leased_seconds double precision,
    oldest_waiting_seconds double precision,
    delivered_rate double precision,
    acked_rate double precision,
    nacked_rate double precision,
    rejected_rate double precision,
    expired_rate double precision,
    dead_lettered_rate double precision,
    filtered_rate double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    return query
    select
        s.id, m.ahead, m.waiting, m.leased, m.dead, m.acked, m.filtered, m.estimated, m.paused,
        extract(epoch from v_now - m.oldest_created_at)::double precision,
        extract(epoch from v_now - m.oldest_leased_created_at)::double precision,
        extract(epoch from v_now - m.oldest_waiting_created_at)::double precision,
        r.delivered, r.acked, r.nacked, r.rejected, r.expired, r.dead_lettered, r.filtered
    from fastpubsub.subscriptions as s
    cross join lateral fastpubsub.subscription_metrics(s.topic_key, s.subscription_key, p_look) as m
    cross join lateral fastpubsub.recent_rates(s.topic_key, s.subscription_key, p_now) as r
    where s.id = any(p_ids);
end;
$$;

-- functions/list_subscription_figures_2.sql
drop function fastpubsub.list_subscription_figures_2;

-- functions/list_subscription_metrics.sql
-- Returns the metrics of up to p_limit subscriptions for one scrape, and what each keeps of its topic beyond the retention. The caller
-- passes back, in arrays, the `judged_…` values of the call before, so that no message is judged twice. All searches together take at most
-- p_milliseconds, each at most half of the time left.
create or replace function fastpubsub.list_subscription_metrics(
    p_limit integer,
    p_retention_seconds bigint,
    p_subscription_keys bigint [] default '{}',
    p_judged_filters bigint [] default '{}',
    p_judged_from bigint [] default '{}',
    p_judged_to bigint [] default '{}',
    p_milliseconds integer default 200,
    p_now timestamptz default null
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
    paused boolean
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
        order by s.subscription_key
        limit p_limit
    loop
        return query
        select
            v_subscription.subscription_key, v_subscription.id, v_subscription.topic_id, m.ahead, m.waiting, m.leased, m.dead, m.acked,
            m.oldest_created_at, m.oldest_leased_created_at, m.oldest_waiting_created_at, m.unjudged, m.judged_filter, m.judged_from,
            m.judged_to, k.state, k.bytes, m.paused
        from
            fastpubsub.subscription_metrics(
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

-- functions/list_subscription_metrics_2.sql
drop function fastpubsub.list_subscription_metrics_2;

-- functions/list_subscriptions.sql
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter.
create or replace function fastpubsub.list_subscriptions(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_topic_id text default null,
    p_part text default null,
    p_after text default null,
    p_has_dead_letters boolean default false
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
    paused_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        s.id, t.id, s.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, s.created_at, c.paused_at
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    where
        (p_ids is null or s.id = any(p_ids)) and (p_topic_id is null or t.id = p_topic_id)
        and (p_part is null or strpos(lower(s.id), lower(p_part)) > 0)
        and (p_after is null or s.id collate "C" > p_after)
        and (
            not p_has_dead_letters
            or exists (
                select from fastpubsub.dead_letters as d
                where d.topic_key = s.topic_key and d.subscription_key = s.subscription_key
            )
        )
    order by s.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;

-- functions/list_subscriptions_2.sql
drop function fastpubsub.list_subscriptions_2;

-- functions/list_trimmable.sql
-- Lists the topics where trim_messages has work: messages past the retention, or claims and idempotency keys that are no longer needed.
create or replace function fastpubsub.list_trimmable(
    p_retention_seconds bigint,
    p_window_seconds integer,
    p_now timestamptz default null
) returns table (topic_key bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_head record;
    v_last bigint;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    for v_head in select h.topic_key, coalesce(h.retention_seconds, p_retention_seconds) as retention from fastpubsub.heads as h loop
        v_last := fastpubsub.last_position(v_head.topic_key);
        if
            exists (
                select from fastpubsub.messages as m
                where
                    m.topic_key = v_head.topic_key and m.position = fastpubsub.first_position(v_head.topic_key, v_last)
                    and m.position < v_last and m.created_at < v_now - make_interval(secs => v_head.retention)
            )
            or exists (
                select from fastpubsub.idempotency_keys as k
                where k.topic_key = v_head.topic_key and k.created_at < v_now - make_interval(secs => p_window_seconds)
            )
            or exists (
                select from fastpubsub.cursors as c
                cross join lateral (
                    select n.sequence from fastpubsub.claims as n
                    where n.topic_key = c.topic_key and n.subscription_key = c.subscription_key
                    order by n.sequence desc limit 1
                ) as n
                inner join fastpubsub.claims as o
                    on o.topic_key = c.topic_key and o.subscription_key = c.subscription_key and o.sequence = n.sequence - 1
                where c.topic_key = v_head.topic_key
            )
        then
            topic_key := v_head.topic_key;
            return next;
        end if;
    end loop;
end;
$$;

-- functions/lock_schedule.sql
drop function fastpubsub.lock_schedule;

-- functions/lock_topic.sql
drop function fastpubsub.lock_topic;

-- functions/mark_floor.sql
drop function fastpubsub.mark_floor;

-- functions/matching_positions.sql
-- Returns the positions in (p_after, p_to] whose messages match, in order, at most p_limit. A payload that cannot be read as jsonb does
-- not match and raises no error: it is reported in `unreadable`.
create or replace function fastpubsub.matching_positions(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_path jsonpath,
    p_limit integer,
    out positions bigint [],
    out unreadable bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_message record;
    v_reads_payload boolean := p_path::text not like 'strict $"attributes"%';
begin
    begin
        if strpos(p_path::text, '$"attributes"') = 0 then
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to and m.payload::jsonb @? p_path
                order by m.position
                limit p_limit
            ) as f;
        else
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
                    and jsonb_path_exists(
                        case when v_reads_payload then m.payload::jsonb else 'null' end, p_path,
                        jsonb_build_object('attributes', m.attributes), true
                    )
                order by m.position
                limit p_limit
            ) as f;
        end if;
        return;
    exception when data_exception or program_limit_exceeded then
        positions := null;
    end;
    for v_message in
        select m.position, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    loop
        begin
            if fastpubsub.passes_filter(v_message.payload, v_message.attributes, p_path) then
                positions := positions || v_message.position;
            end if;
        exception when data_exception or program_limit_exceeded then
            unreadable := unreadable || v_message.position;
        end;
        exit when cardinality(positions) >= p_limit;
    end loop;
end;
$$;

-- functions/message_id.sql
drop function fastpubsub.message_id;

-- functions/move_cursor.sql
-- Inserts the newest row of `claims` for a caller that holds the cursor; the floor of the retries stays.
create or replace function fastpubsub.move_cursor(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_routed bigint,
    p_purged bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    )
    select
        p_topic_key, p_subscription_key, c.sequence + 1, p_position, c.retry_due_at, c.retry_position, p_routed, p_purged, c.dropped,
        c.filtered
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
end;
$$;

-- functions/move_delayed_message.sql
drop function fastpubsub.move_delayed_message;

-- functions/nack.sql
drop function fastpubsub.nack;

-- functions/nack_messages.sql
drop function fastpubsub.nack_messages;
-- Gives deliveries back for another attempt: each run of ids after its p_delay_seconds (null: the backoff of the subscription). The result
-- for each id is 1 (settled), 0 (gone) or 2 (stale; see take_leases); `died` counts the messages that had no attempts left.
create or replace function fastpubsub.nack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_delay_seconds integer [] default null,
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out died integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    outcomes := v_taken.outcomes;
    died := 0;
    if v_taken.positions is not null then
        died := fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts,
            (
                select array_agg(p_delay_seconds[t.run] order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            null, 'nacked', coalesce(p_now, clock_timestamp())
        );
    end if;
end;
$$;

-- functions/name_subscription.sql
drop function fastpubsub.name_subscription;

-- functions/name_turns.sql
drop function fastpubsub.name_turns;

-- functions/network_pattern.sql
drop function fastpubsub.network_pattern;

-- functions/park_after.sql
drop function fastpubsub.park_after;

-- functions/pass_busy_keys.sql
drop function fastpubsub.pass_busy_keys;

-- functions/pass_expired.sql
drop function fastpubsub.pass_expired;

-- functions/passes_filter.sql
drop function fastpubsub.passes_filter;
-- Whether a message passes a filter. A filter on nothing but attributes does not read the payload.
create or replace function fastpubsub.passes_filter(p_payload json, p_attributes jsonb, p_path jsonpath) returns boolean
language sql immutable as $$
    select jsonb_path_exists(
        case when p_path::text like 'strict $"attributes"%' then 'null' else p_payload::jsonb end, p_path,
        jsonb_build_object('attributes', p_attributes), true
    ) is true;
$$;

-- functions/pause_schedule.sql
drop function fastpubsub.pause_schedule;

-- functions/pause_subscription.sql
-- Lets a subscription hand out nothing, or resumes it; twice is the same as once. What consumers hold they can settle as always.
create or replace function fastpubsub.pause_subscription(
    p_id text,
    p_paused boolean,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.cursors as c set
        paused_at = case when p_paused then coalesce(c.paused_at, p_now, clock_timestamp()) end
    from fastpubsub.subscriptions as s
    where s.id = p_id and c.topic_key = s.topic_key and c.subscription_key = s.subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/preview_filter.sql
-- How many messages are ahead of a subscription, and how many would be with another filter; of either, p_look messages are judged.
create or replace function fastpubsub.preview_filter(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_filter json,
    p_look integer default 10000,
    out ahead_now bigint,
    out ahead_after bigint,
    out is_estimated boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
begin
    select n.messages, a.messages, n.is_estimated or a.is_estimated
    into preview_filter.ahead_now, preview_filter.ahead_after, preview_filter.is_estimated
    from fastpubsub.cursors as u
    cross join lateral fastpubsub.cursor_position(p_topic_key, p_subscription_key) as c (position)
    cross join lateral fastpubsub.last_position(p_topic_key) as l (last)
    cross join lateral fastpubsub.count_ahead(p_topic_key, c.position, l.last, u.filter_path, p_look) as n
    cross join lateral fastpubsub.count_ahead(p_topic_key, c.position, l.last, v_path, p_look) as a
    where u.topic_key = p_topic_key and u.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
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
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    from_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_cursor.position + 1);
    to_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_to + 1);
end;
$$;

-- functions/publish.sql
drop function fastpubsub.publish;
-- For applications: publishes from the caller's own transaction, so that the message exists exactly if the transaction commits. The relay
-- of a server moves it into the log within moments of the commit; messages of one transaction keep the order of the calls. Takes no lock
-- that others wait for and does not change the caller's settings. The rules of the server hold: an unknown topic raises FP404; FP422 is
-- raised for a payload that is not a JSON object or could not be read later, for attributes that are not an object of strings, and for a
-- topic with a schema.
create or replace function fastpubsub.publish(topic text, payload json, attributes jsonb default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_schema_version bigint;
begin
    select t.topic_key, h.schema_version into v_topic_key, v_schema_version
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = publish.topic;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('topic "%s" does not exist', left(publish.topic, 128)),
            hint = 'Create it first, or correct its name.';
    elsif v_schema_version <> 0 then
        raise exception using
            errcode = 'FP422',
            message = format('topic "%s" has a JSON Schema, which only the server can check', publish.topic),
            hint = 'Publish to it over HTTP, or use a topic without a schema.';
    end if;
    perform fastpubsub.check_payload(publish.payload);
    if publish.attributes in ('null', '{}') then
        publish.attributes := null;
    elsif publish.attributes is not null then
        perform fastpubsub.check_attributes(publish.attributes);
    end if;
    insert into fastpubsub.outbox (transaction_id, topic_key, payload, attributes)
    values (pg_current_xact_id(), v_topic_key, publish.payload, publish.attributes);
end;
$$;

revoke execute on function fastpubsub.publish(text, json, jsonb) from public;

-- functions/publish_and_delay.sql
drop function fastpubsub.publish_and_delay;

-- functions/publish_dead_letters.sql
drop function fastpubsub.publish_dead_letters;

-- functions/publish_delayed_messages.sql
drop function fastpubsub.publish_delayed_messages;

-- functions/publish_due_messages.sql
drop function fastpubsub.publish_due_messages;

-- functions/publish_messages.sql
drop function fastpubsub.publish_messages;
-- Appends to a topic. The payloads get the positions first_position, first_position + 1, … and one creation time (to the millisecond, as
-- message ids carry it). The row lock on the head, held to the commit, makes every position visible before the next is given out.
-- p_schema_version is the version of the topic's schema that the payloads were checked by, 0 for no schema; when it is not the current one,
-- FP428 is raised and nothing is stored. Null: the payloads were accepted earlier.
create or replace function fastpubsub.publish_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out first_position bigint,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select m.position + 1, greatest(publish_messages.created_at, m.created_at)
    into publish_messages.first_position, publish_messages.created_at
    from fastpubsub.messages as m
    where m.topic_key = p_topic_key
    order by m.position desc
    limit 1;
    if not found then
        first_position := 1;
        created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select p_topic_key, publish_messages.first_position + u.ordinal - 1, publish_messages.created_at, u.payload, u.attributes
    from unnest(p_payloads, p_attributes) with ordinality as u (payload, attributes, ordinal);
end;
$$;

-- functions/publish_messages_once.sql
drop function fastpubsub.publish_messages_once;
-- Like publish_messages, for several requests that each carry an idempotency key: p_counts is the number of payloads of each. A request
-- that was seen within the window stores nothing and gets its first answer; if its body differs, its first_position is null. The lock on
-- the head makes a repetition wait for the first request.
create or replace function fastpubsub.publish_messages_once(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_counts integer [],
    p_clients text [],
    p_keys text [],
    p_body_hashes bytea [],
    p_window_seconds integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out first_positions bigint [],
    out created_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_now timestamptz;
    v_created_at timestamptz;
    v_next bigint;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_payloads json [] := '{}';
    v_attributes jsonb [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    select m.position + 1, m.created_at into v_next, v_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1;
    v_next := coalesce(v_next, 1);
    v_created_at := greatest(date_trunc('milliseconds', v_now), v_created_at);
    for i in 1..cardinality(p_keys) loop
        select k.* into v_known from fastpubsub.idempotency_keys as k
        where k.topic_key = p_topic_key and k.client = p_clients[i] and k.key = p_keys[i];
        if found and v_known.created_at > v_now - make_interval(secs => p_window_seconds) then
            first_positions[i] := case when v_known.body_hash = p_body_hashes[i] then v_known.first_position end;
            created_at[i] := v_known.created_at;
        else
            insert into fastpubsub.idempotency_keys as k (
                topic_key, client, key, body_hash, first_position, message_count, created_at
            ) values (p_topic_key, p_clients[i], p_keys[i], p_body_hashes[i], v_next, p_counts[i], v_created_at)
            on conflict (topic_key, client, key) do update set
                body_hash = excluded.body_hash,
                first_position = excluded.first_position,
                message_count = excluded.message_count,
                created_at = excluded.created_at;
            first_positions[i] := v_next;
            created_at[i] := v_created_at;
            v_next := v_next + p_counts[i];
            v_payloads := v_payloads || p_payloads[v_offset + 1 : v_offset + p_counts[i]];
            v_attributes := v_attributes || p_attributes[v_offset + 1 : v_offset + p_counts[i]];
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select p_topic_key, v_next - cardinality(v_payloads) + u.ordinal - 1, v_created_at, u.payload, u.attributes
    from unnest(v_payloads, v_attributes) with ordinality as u (payload, attributes, ordinal)
    where u.ordinal <= cardinality(v_payloads);
end;
$$;

-- functions/publish_to_topics.sql
drop function fastpubsub.publish_to_topics;
-- Like publish_messages, for several topics in one transaction. p_places says for each payload which of p_topic_keys it is for; the
-- payloads of one topic follow each other, after p_offsets others. Waits for no lock: when another call is publishing to a topic at this
-- moment, or a topic is gone, or its schema is another one, that topic gets null and nothing is stored in it; publish_messages then gives
-- the reason.
create or replace function fastpubsub.publish_to_topics(
    p_topic_keys bigint [],
    p_schema_versions bigint [],
    p_offsets integer [],
    p_places integer [],
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_now timestamptz default null,
    out first_positions bigint [],
    out created_at timestamptz []
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
    v_places bigint [];
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    with locked as materialized (
        select u.place
        from unnest(p_topic_keys, p_schema_versions) with ordinality as u (topic_key, schema_version, place)
        inner join fastpubsub.heads as h on h.topic_key = u.topic_key and h.schema_version = u.schema_version
        for no key update of h skip locked
    )

    select array_agg(l.place) into v_places
    from locked as l;
    v_now := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select
        array_agg(case when u.place = any(v_places) then coalesce(m.position + 1, 1) end order by u.place),
        array_agg(case when u.place = any(v_places) then greatest(v_now, m.created_at) end order by u.place)
    into publish_to_topics.first_positions, publish_to_topics.created_at
    from unnest(p_topic_keys) with ordinality as u (topic_key, place)
    left join lateral (
        select m.position, m.created_at from fastpubsub.messages as m where m.topic_key = u.topic_key order by m.position desc limit 1
    ) as m on true;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select
        p_topic_keys[u.place],
        publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place],
        publish_to_topics.created_at[u.place],
        u.payload,
        u.attributes
    from unnest(p_payloads, p_attributes, p_places) with ordinality as u (payload, attributes, place, ordinal)
    where publish_to_topics.first_positions[u.place] is not null;
end;
$$;

-- functions/purge_dead_letters.sql
drop function fastpubsub.purge_dead_letters;
-- Deletes dead letters for good. Returns the positions that it deleted.
create or replace function fastpubsub.purge_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_created_at timestamptz []
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
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where d.created_at = i.created_at
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
    end loop;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_positions)
    );
    return v_positions;
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
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_last := greatest(fastpubsub.last_position(p_topic_key), v_cursor.position);
    v_ahead := fastpubsub.count_ahead(p_topic_key, v_cursor.position, v_last, v_settings.filter_path, p_look);
    v_ended := fastpubsub.end_deliveries(p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position);
    delete from fastpubsub.revived as v where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key;
    perform fastpubsub.remember_seek(p_topic_key, p_subscription_key, v_cursor.position, v_last, 'purged', p_now);
    perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_last, v_cursor.routed, v_cursor.purged + v_ended);
    purged := v_ahead.messages + v_ended;
    is_estimated := v_ahead.is_estimated;
end;
$$;

-- functions/put_aside.sql
drop function fastpubsub.put_aside;

-- functions/rate_reached.sql
drop function fastpubsub.rate_reached;

-- functions/read_ack_ids.sql
drop function fastpubsub.read_ack_ids;

-- functions/read_clock.sql
drop function fastpubsub.read_clock;

-- functions/read_log.sql
drop function fastpubsub.read_log;
-- Returns the messages of a topic in (p_after, p_to], in order, up to p_max_bytes together; with p_at_least_one, the first one comes
-- whatever its size.
create or replace function fastpubsub.read_log(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
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
    select array_agg(m.position), array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes)
    into read_log.positions, read_log.created_at, read_log.payloads, read_log.attributes
    from (
        select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= v_to
        order by m.position
    ) as m;
end;
$$;

-- functions/read_log_in_order.sql
drop function fastpubsub.read_log_in_order;

-- functions/read_matching_log.sql
drop function fastpubsub.read_matching_log;
-- Returns the messages after p_after that a filter matches, bounded like scan_log, and by bytes like read_log. `scanned` is how far the
-- cursor can move: a position up to there that is not in `positions` does not match. Payloads that the filter cannot read are in
-- `unreadable`.
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
    out unreadable_created_at timestamptz []
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
    select array_agg(t.position), array_agg(t.created_at), array_agg(t.payload), array_agg(t.attributes)
    into read_matching_log.positions, read_matching_log.created_at, read_matching_log.payloads, read_matching_log.attributes
    from (
        select
            m.position, m.created_at, m.payload, m.attributes,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running,
            row_number() over (order by m.position) as ordinal
        from unnest(v_found.positions) as p (position)
        cross join lateral (
            select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
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

-- functions/read_messages.sql
-- Follows a topic: returns up to p_limit messages after p_after, without a lease, bounded by bytes (the first always comes). With a null
-- p_after it returns only `last`, the newest position. `missed` says whether trimming took messages after p_after before they were read.
create or replace function fastpubsub.read_messages(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    out last bigint,
    out missed boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb []
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
    v_after bigint := p_after;
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    missed := false;
    if v_after is null or v_after >= read_messages.last then
        return;
    end if;
    if
        not exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_after + 1)
    then
        missed := true;
        v_after := fastpubsub.first_position(p_topic_key, read_messages.last) - 1;
    end if;
    select
        array_agg(t.position order by t.position), array_agg(t.created_at order by t.position),
        array_agg(t.payload order by t.position), array_agg(t.attributes order by t.position)
    into read_messages.positions, read_messages.created_at, read_messages.payloads, read_messages.attributes
    from (
        select
            m.position, m.created_at, m.payload, m.attributes,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > v_after and m.position <= v_after + p_limit
        order by m.position
    ) as t
    where t.running <= p_max_bytes or t.position = v_after + 1;
end;
$$;

-- functions/read_messages_2.sql
drop function fastpubsub.read_messages_2;

-- functions/recent_rates.sql
-- Returns what happened per second over the last minute that is over, to a topic (p_subscription_key 0), a subscription, or the server
-- (0, 0).
create or replace function fastpubsub.recent_rates(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_now timestamptz default null,
    out published double precision,
    out delivered double precision,
    out acked double precision,
    out nacked double precision,
    out rejected double precision,
    out expired double precision,
    out dead_lettered double precision,
    out filtered double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_to bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint / 5 * 5;
begin
    select
        coalesce(sum(h.published), 0) / 60.0,
        coalesce(sum(h.delivered), 0) / 60.0,
        coalesce(sum(h.acked), 0) / 60.0,
        coalesce(sum(h.nacked), 0) / 60.0,
        coalesce(sum(h.rejected), 0) / 60.0,
        coalesce(sum(h.expired), 0) / 60.0,
        coalesce(sum(h.dead_lettered), 0) / 60.0,
        coalesce(sum(h.filtered), 0) / 60.0
    into
        recent_rates.published,
        recent_rates.delivered,
        recent_rates.acked,
        recent_rates.nacked,
        recent_rates.rejected,
        recent_rates.expired,
        recent_rates.dead_lettered,
        recent_rates.filtered
    from fastpubsub.history as h
    where
        h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.interval_seconds = 5
        and h.at >= v_to - 60 and h.at < v_to;
end;
$$;

-- functions/record_breakers.sql
drop function fastpubsub.record_breakers;

-- functions/record_process.sql
drop function fastpubsub.record_process;

-- functions/record_push_attempts.sql
drop function fastpubsub.record_push_attempts;

-- functions/record_uses.sql
drop function fastpubsub.record_uses;

-- functions/refuse_claim.sql
drop function fastpubsub.refuse_claim;

-- functions/reject.sql
drop function fastpubsub.reject;

-- functions/reject_messages.sql
-- Makes messages dead letters at once, whatever attempts are left, each run of ids with its reason. The result for each id is 1 (settled),
-- 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.reject_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_reasons text [],
    p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts, null,
            (
                select array_agg(coalesce(p_reasons[t.run], 'rejected') order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            'rejected', coalesce(p_now, clock_timestamp())
        );
    end if;
    return v_taken.outcomes;
end;
$$;

-- functions/reject_messages_2.sql
drop function fastpubsub.reject_messages_2;

-- functions/relay_messages.sql
-- Moves rows of the outbox to the end of their topic, in the order of (transaction, ordinal), in one transaction, so each arrives once.
-- Rows that are gone were moved by another process. `moved` is null when another process is moving rows at this moment. Rows of a topic
-- that was deleted since are deleted and counted in `dropped`.
create or replace function fastpubsub.relay_messages(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_now timestamptz default null,
    out topic_id text,
    out moved integer,
    out dropped integer
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
    v_payloads json [];
    v_attributes jsonb [];
begin
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('relay_messages', false) then
        return;
    end if;
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if found then
        select t.id into relay_messages.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    end if;
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        where
            o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal
            and o.topic_key = p_topic_key
        returning o.transaction_id, o.ordinal, o.payload, o.attributes
    )

    select
        array_agg(t.payload order by t.transaction_id, t.ordinal),
        array_agg(t.attributes order by t.transaction_id, t.ordinal)
    into v_payloads, v_attributes
    from taken as t;
    moved := coalesce(cardinality(v_payloads), 0);
    dropped := 0;
    if topic_id is null then
        dropped := moved;
        moved := 0;
    elsif moved > 0 then
        perform fastpubsub.publish_messages(p_topic_key, v_payloads, v_attributes, null, p_now);
    end if;
end;
$$;

-- functions/release_delayed_messages.sql
drop function fastpubsub.release_delayed_messages;

-- functions/release_endpoints.sql
drop function fastpubsub.release_endpoints;

-- functions/release_expired_leases.sql
-- Ends leases of one subscription that are past their deadline, until they hold p_limit messages: the messages wait for a retry, or die
-- after the last attempt. Leases that another call settles or extends at this moment are left alone; only locked rows are deleted.
create or replace function fastpubsub.release_expired_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look_back_seconds double precision default null,
    p_limit integer default 1000,
    p_wait boolean default false,
    p_now timestamptz default null,
    out released integer,
    out died integer
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
    v_now timestamptz;
    v_lease record;
    v_positions bigint [];
    v_lasts bigint [];
    v_attempts integer [];
begin
    released := 0;
    died := 0;
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('release_expired_leases', p_wait) then
        return;
    end if;
    perform from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    for no key update;
    if not found then
        return;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    -- Without sorting, the order can only come from the index on the deadlines; the other index walks over rows that others deleted.
    for v_lease in
        select l.position, l.last_position, l.attempts from fastpubsub.leases as l
        where
            l.expires_at > coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity') and l.expires_at <= v_now
            and l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        order by l.expires_at
        limit p_limit
        for update skip locked
    loop
        delete from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
        v_positions := v_positions || v_lease.position;
        v_lasts := v_lasts || v_lease.last_position;
        v_attempts := v_attempts || v_lease.attempts;
        released := release_expired_leases.released + (v_lease.last_position - v_lease.position + 1);
        exit when release_expired_leases.released >= p_limit;
    end loop;
    if v_positions is null then
        return;
    end if;
    died := fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_positions, v_lasts, v_attempts, null, null, 'lease expired', v_now
    );
end;
$$;

-- functions/reprocess_dead_letters.sql
-- Moves dead letters back: their copy goes to `revived` and is due at once, and attempts start again at 1. Where a seek made the message
-- come again anyway (it is ahead of the cursor, leased or waiting), only the dead letter is deleted, and counts as purged; a message ahead
-- that the filter would skip stays dead. Returns the positions that are no longer dead.
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
        where
            d.created_at = i.created_at
            and case
                when d.position <= v_cursor.position or v_settings.filter_path is null then true
                else (
                    select f.positions is not null
                    from fastpubsub.matching_positions(p_topic_key, d.position - 1, d.position, v_settings.filter_path, 1) as f
                )
            end
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
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
    ) as t;
    insert into fastpubsub.revived (topic_key, subscription_key, position, created_at, payload, attributes)
    select d.topic_key, d.subscription_key, d.position, d.created_at, d.payload, d.attributes
    from unnest(v_positions) as p
    cross join lateral (
        select d.* from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where p <> all(v_coming);
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select
        p_topic_key, p_subscription_key,
        greatest(coalesce(p_now, clock_timestamp()), v_cursor.retry_due_at + interval '1 microsecond'), p, 0, 'reprocessed'
    from unnest(v_positions) as p
    where p <> all(v_coming);
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
drop function fastpubsub.requeue_messages;
-- Requeues deliveries that ended without an ack, in runs from p_positions to p_last_positions; the caller holds the cursor and has deleted
-- the leases. A message with attempts left waits for p_delay_seconds (null: the backoff); others, and those with p_reasons, die. Returns
-- how many died.
create or replace function fastpubsub.requeue_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_last_positions bigint [],
    p_attempts integer [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_cause text,
    p_now timestamptz
) returns integer
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
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
    v_delay_seconds integer [];
    v_reasons text [];
begin
    select array_agg(p), array_agg(r.attempts), array_agg(r.delay_seconds), array_agg(r.reason)
    into v_positions, v_attempts, v_delay_seconds, v_reasons
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons)
        as r (position, last_position, attempts, delay_seconds, reason)
    cross join lateral generate_series(r.position, r.last_position) as p;
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;

    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select
        p_topic_key, p_subscription_key,
        greatest(
            p_now + make_interval(secs => coalesce(
                u.delay_seconds,
                least(v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(u.attempts, 1) - 1, 40))
            )),
            v_cursor.retry_due_at + interval '1 microsecond'
        ),
        u.position, u.attempts, p_cause
    from unnest(v_positions, v_attempts, v_delay_seconds, v_reasons) as u (position, attempts, delay_seconds, reason)
    where u.attempts < v_settings.max_delivery_attempts and u.reason is null
    order by u.position;

    select array_agg(u.position) into v_dead
    from unnest(v_positions, v_attempts, v_reasons) as u (position, attempts, reason)
    where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null;
    if v_dead is null then
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
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes
    )
    select
        p_topic_key, p_subscription_key, u.position, coalesce(m.created_at, v.created_at), p_now, u.attempts,
        coalesce(u.reason, format('%s on delivery attempt %s of %s', p_cause, u.attempts, v_settings.max_delivery_attempts)),
        coalesce(m.payload, v.payload), coalesce(m.attributes, v.attributes)
    from (
        select u.position, u.attempts, u.reason
        from unnest(v_positions, v_attempts, v_reasons) as u (position, attempts, reason)
        where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null
        order by u.position
    ) as u
    left join lateral (
        select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
        limit 1
    ) as v on true
    on conflict (topic_key, subscription_key, position) do update set
        died_at = excluded.died_at, attempts = excluded.attempts, reason = excluded.reason;
    get diagnostics v_died = row_count;
    foreach v_position in array v_dead loop
        delete from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = v_position;
    end loop;
    if v_replaced > 0 then
        perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + v_replaced);
    end if;
    return v_died;
end;
$$;

-- functions/require_dead_letter_topic.sql
drop function fastpubsub.require_dead_letter_topic;

-- functions/require_push.sql
drop function fastpubsub.require_push;

-- functions/require_push_timeout.sql
drop function fastpubsub.require_push_timeout;

-- functions/require_room.sql
drop function fastpubsub.require_room;

-- functions/return_leases.sql
-- Gives back deliveries that no consumer has seen: they are due at once, and the attempt does not count. The ids come as in ack_messages.
-- The result for each id is 1 (returned), 0 (gone) or 2 (stale; see take_leases).
create or replace function fastpubsub.return_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    outcomes := v_taken.outcomes;
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions,
            (
                select array_agg(t.attempts - 1 order by t.ordinal)
                from unnest(v_taken.attempts) with ordinality as t (attempts, ordinal)
            ),
            array_fill(0, array[cardinality(v_taken.positions)]), null, 'returned', coalesce(p_now, clock_timestamp())
        );
    end if;
end;
$$;

-- functions/room_in_flight.sql
drop function fastpubsub.room_in_flight;

-- functions/room_to_claim.sql
drop function fastpubsub.room_to_claim;

-- functions/rotate_push_secret.sql
drop function fastpubsub.rotate_push_secret;

-- functions/run_transaction.sql
drop function fastpubsub.run_transaction;

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
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes
    )
    select
        m.topic_key, m.subscription_key, m.position, m.created_at, coalesce(p_now, clock_timestamp()), 0,
        'the subscription was sought elsewhere before the reprocessed message was settled', m.payload, m.attributes
    from moved as m
    on conflict (topic_key, subscription_key, position) do nothing;
    get diagnostics v_revived = row_count;
    perform fastpubsub.remember_seek(p_topic_key, p_subscription_key, v_cursor.position, v_position, 'skipped', p_now);
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_position, v_cursor.routed - v_ended + v_revived, v_cursor.purged
    );
end;
$$;

-- functions/set_push.sql
drop function fastpubsub.set_push;

-- functions/settle_and_claim.sql
-- Settles, then claims, in one transaction: nothing is claimed when something cannot be settled, and messages that are given back
-- without a delay may be claimed again at once. The runs of ids are those of p_counts[1] acks, p_counts[2] nacks, p_counts[3] returns,
-- p_counts[4] rejects and p_counts[5] extensions, one after the other; p_seconds has the delays and extensions, p_reasons the reasons,
-- by run. `outcomes` says of every id, in the order of the runs, what take_leases says; `died` counts what was nacked for the last time.
--
-- The rest is claim_messages; without p_limits nothing is claimed. The cursor is locked first, even for an ack of whole leases, because
-- whoever holds leases may not wait for the cursor.
create or replace function fastpubsub.settle_and_claim(
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
    out paused boolean
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
    v_first integer := 1;
    v_end integer;
    v_nacked record;
begin
    perform fastpubsub.begin_call(true);
    v_durable := current_setting('synchronous_commit');
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
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
    if v_end >= v_first then
        outcomes := fastpubsub.ack_messages(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end]
        );
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[2];
    if v_end >= v_first then
        v_nacked := fastpubsub.nack_messages(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_seconds[v_first:v_end], p_lengths[v_first:v_end], p_now
        );
        outcomes := settle_and_claim.outcomes || v_nacked.outcomes;
        died := v_nacked.died;
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[3];
    if v_end >= v_first then
        outcomes := settle_and_claim.outcomes || fastpubsub.return_leases(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now
        );
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[4];
    if v_end >= v_first then
        outcomes := settle_and_claim.outcomes || fastpubsub.reject_messages(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_reasons[v_first:v_end], p_lengths[v_first:v_end], p_now
        );
    end if;
    v_first := v_end + 1;
    v_end := v_end + p_counts[5];
    if v_end >= v_first then
        outcomes := settle_and_claim.outcomes || fastpubsub.extend_leases(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_seconds[v_first:v_end], p_lengths[v_first:v_end], p_now
        );
    end if;

    if cardinality(p_limits) > 0 then
        select
            c.token, c.expires_at, c.scanned, c.last, c.positions, c.attempts, c.created_at, c.payloads, c.attributes, c.unreadable,
            c.unreadable_created_at, c.lease_seconds, c.filtered, c.paused
        into
            token, expires_at, scanned, last, settle_and_claim.positions, attempts, created_at, payloads, attributes, unreadable,
            unreadable_created_at, lease_seconds, filtered, paused
        from fastpubsub.claim_messages(
            p_topic_key, p_subscription_key, p_limits, p_consumer_ids, p_max_bytes, p_scan_rows, p_scan_milliseconds, p_now
        ) as c;
        -- A claim alone may be lost in a crash; what was settled may not.
        perform set_config('synchronous_commit', v_durable, true);
    end if;
end;
$$;

-- functions/settle_and_claim_2.sql
drop function fastpubsub.settle_and_claim_2;

-- functions/settle_at_commit.sql
drop function fastpubsub.settle_at_commit;

-- functions/step_redrive.sql
drop function fastpubsub.step_redrive;
-- Goes on with a redrive: looks at up to p_scan dead letters and moves as many as the rate allows since the last step, one second's worth
-- at most. Returns how many it moved, whether it has to be called again, and the seconds until the rate allows more.
create or replace function fastpubsub.step_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint,
    p_limit integer,
    p_scan integer,
    p_now timestamptz default null,
    out moved bigint,
    out running boolean,
    out next_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_redrive fastpubsub.redrives;
    v_now timestamptz;
    v_allowed integer := p_limit;
    v_seconds double precision;
    v_spent double precision := 0;
    v_positions bigint [];
    v_created_at timestamptz [];
    v_matches bigint [];
    v_looked bigint;
    v_last bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_now := coalesce(p_now, clock_timestamp());
    select r.* into v_redrive from fastpubsub.redrives as r
    where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key;
    moved := 0;
    running := found and v_redrive.state = 'running';
    next_seconds := 0;
    if not running then
        return;
    end if;
    if v_redrive.per_second is not null then
        v_seconds := least(1, greatest(0, extract(epoch from v_now - v_redrive.stepped_at)::double precision));
        v_allowed := least(p_limit, floor(v_seconds * v_redrive.per_second + 1e-6));
        if v_allowed = 0 then
            next_seconds := 1.0 / v_redrive.per_second - v_seconds;
            return;
        end if;
    end if;
    select
        count(*), max(t.position),
        (array_agg(t.position order by t.position) filter (where t.matches))[:v_allowed],
        (array_agg(t.created_at order by t.position) filter (where t.matches))[:v_allowed]
    into v_looked, v_last, v_positions, v_created_at
    from (
        select
            d.position, d.created_at,
            (v_redrive.reason is null or d.reason = v_redrive.reason)
            and (v_redrive.died_after is null or d.died_at >= v_redrive.died_after)
            and d.died_at < v_redrive.died_before as matches
        from fastpubsub.dead_letters as d
        where
            d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position >= v_redrive.next_position
        order by d.position
        limit p_scan
    ) as t;
    if cardinality(v_positions) >= v_allowed then
        v_last := v_positions[v_allowed];
    elsif v_looked < p_scan then
        running := false;
    end if;
    if v_positions is not null then
        if v_redrive.action = 'purge' then
            v_matches := fastpubsub.purge_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at);
        else
            v_matches := fastpubsub.reprocess_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at, p_now);
        end if;
        moved := cardinality(v_matches);
        v_spent := coalesce(cardinality(v_positions) / v_redrive.per_second::double precision, 0);
    end if;
    -- What the rate had allowed before the last second is not made up for.
    update fastpubsub.redrives as r
    set
        done = r.done + moved,
        next_position = coalesce(v_last + 1, r.next_position),
        stepped_at = v_now - make_interval(secs => coalesce(v_seconds, 0) - v_spent),
        state = case when running then 'running' else 'done' end,
        ended_at = case when not running then v_now end
    where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.redrive_key = p_redrive_key;
    if running and v_spent > 0 then
        next_seconds := greatest(0, 1.0 / v_redrive.per_second - v_seconds + v_spent);
    end if;
end;
$$;

-- functions/store_keys.sql
drop function fastpubsub.store_keys;

-- functions/subscription_metrics.sql
-- Messages ahead + waiting, leased, dead and acked add up to the messages routed. For a filtered subscription at most p_look messages are
-- judged; beyond them `ahead` is estimated by the share that matched so far, and `estimated` says so. The search for the oldest message
-- ahead that passes the filter takes up to p_milliseconds longer. It has come from `judged_from` to `judged_to`, and no message between
-- them matches the filter `judged_filter`; a next call that is given these values goes on from there. Until a message is found, `unjudged`
-- counts the messages left; then it is 0. The positions are the oldest of each state that the log still has. `filtered` counts the messages
-- that the cursor passed because a filter kept them out, also those that it passed again after a seek.
create or replace function fastpubsub.subscription_metrics(
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
    out paused boolean
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
    v_last bigint;
    v_first bigint;
    v_from bigint;
    v_oldest bigint;
    v_leased bigint;
    v_waiting bigint;
    v_log record;
begin
    select c.filter_path, c.paused_at is not null into v_path, subscription_metrics.paused from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    cursor_position := v_cursor.position;
    filtered := v_cursor.filtered;
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
    select count(*), min(r.position), min(r.position) filter (where r.position >= v_first)
    into waiting, v_waiting, waiting_position
    from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    select
        coalesce(sum(l.last_position - l.position + 1), 0), min(l.position),
        min(greatest(l.position, v_first)) filter (where l.last_position >= v_first)
    into leased, v_leased, leased_position
    from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into dead from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key;
    acked := v_cursor.routed - waiting - leased - dead - v_cursor.purged - v_cursor.dropped;
    oldest_leased_created_at := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_leased);
    oldest_waiting_created_at := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_waiting);
end;
$$;

-- functions/subscription_metrics_2.sql
drop function fastpubsub.subscription_metrics_2;

-- functions/take_due_retries.sql
drop function fastpubsub.take_due_retries;
-- Takes up to p_limit retries that are due at p_now, with their messages, in the order of (due_at, position) after the floor, up to
-- p_max_bytes together (at least one). `due_at` is that of the last one; with its position, it is the next floor.
create or replace function fastpubsub.take_due_retries(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out revived boolean [],
    out due_at timestamptz,
    out size bigint
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
    v_due_at timestamptz [];
    v_missing integer;
begin
    select
        array_agg(t.due_at), array_agg(t.position), array_agg(t.attempts + 1), array_agg(t.created_at), array_agg(t.payload),
        array_agg(t.attributes), array_agg(t.revived), sum(t.size)
    into
        v_due_at, take_due_retries.positions, take_due_retries.attempts, take_due_retries.created_at, take_due_retries.payloads,
        take_due_retries.attributes, take_due_retries.revived, take_due_retries.size
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
                    and (r.due_at, r.position) > (p_floor_due_at, p_floor_position) and r.due_at <= p_now
                order by r.due_at, r.position
                limit p_limit
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
    v_missing := array_position(take_due_retries.created_at, null);
    if v_missing is not null then
        raise exception using
            errcode = 'FP500',
            message = format(
                'position %s of topic_key %s waits for subscription_key %s and has no payload',
                take_due_retries.positions[v_missing], p_topic_key, p_subscription_key
            );
    end if;
    due_at := v_due_at[cardinality(v_due_at)];
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_due_retries.due_at, take_due_retries.positions[cardinality(v_due_at)]);
end;
$$;

-- functions/take_leases.sql
drop function fastpubsub.take_leases;
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
    out outcomes smallint []
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
                        else fastpubsub.were_created_at(
                            p_topic_key, p_subscription_key, l.position, l.last_position, l.revived, r.created_at
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
            returning l.position, l.last_position, l.token, l.leased_at, l.attempts, l.revived, l.consumer_id
        )
        select
            array_agg(t.position) as positions, array_agg(t.last_position) as last_positions, array_agg(t.token) as tokens,
            array_agg(t.leased_at) as leased_at, array_agg(t.attempts) as attempts, array_agg(t.revived) as revived, array_agg(t.consumer_id) as consumer_ids,
            array_agg(v_ordinals[width_bucket(t.position, v_positions)]) as ordinals
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

-- functions/take_turns.sql
drop function fastpubsub.take_turns;

-- functions/transaction_lock.sql
drop function fastpubsub.transaction_lock;

-- functions/trim_changes.sql
-- Deletes up to p_limit of the oldest changes that are older than p_older_than_seconds. Returns how many it deleted.
create or replace function fastpubsub.trim_changes(p_older_than_seconds bigint, p_limit integer) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_deleted bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.changes as c
    where
        c.change_key in (
            select o.change_key from fastpubsub.changes as o
            order by o.change_key
            limit p_limit
            for update skip locked
        )
        and c.changed_at < clock_timestamp() - make_interval(secs => p_older_than_seconds);
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;

-- functions/trim_claims.sql
-- Deletes up to p_limit rows of `claims` per subscription that are no longer the newest, and idempotency keys past their window.
create or replace function fastpubsub.trim_claims(
    p_topic_key bigint,
    p_window_seconds integer,
    p_limit integer default 5000,
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
    v_subscription record;
    v_low bigint;
    v_high bigint;
    v_middle bigint;
    v_newest bigint;
    v_rows integer;
    v_trimmed integer := 0;
    v_window timestamptz := coalesce(p_now, clock_timestamp()) - make_interval(secs => p_window_seconds);
begin
    perform fastpubsub.begin_call(false);
    for v_subscription in select c.subscription_key from fastpubsub.cursors as c where c.topic_key = p_topic_key loop
        select c.sequence into v_newest from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_low := 1;
        v_high := v_newest;
        while v_low < v_high loop
            v_middle := (v_low + v_high) / 2;
            if
                exists (
                    select from fastpubsub.claims as c
                    where
                        c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
                        and c.sequence = v_middle
                )
            then
                v_high := v_middle;
            else
                v_low := v_middle + 1;
            end if;
        end loop;
        delete from fastpubsub.claims as c
        where
            c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
            and c.sequence >= v_low and c.sequence < least(v_newest, v_low + p_limit);
        get diagnostics v_rows = row_count;
        v_trimmed := v_trimmed + v_rows;
    end loop;
    delete from fastpubsub.idempotency_keys as k
    using (
        select o.client, o.key from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and o.created_at < v_window
        order by o.created_at
        limit p_limit
        for update skip locked
    ) as o
    where k.topic_key = p_topic_key and k.client = o.client and k.key = o.key;
    get diagnostics v_rows = row_count;
    return v_trimmed + v_rows;
end;
$$;

-- functions/trim_consumers.sql
-- Deletes what processes wrote that are gone.
create or replace function fastpubsub.trim_consumers(p_old_seconds double precision default 60, p_now timestamptz default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.consumers as c
    where c.seen_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
end;
$$;

-- functions/trim_dispatchers.sql
drop function fastpubsub.trim_dispatchers;

-- functions/trim_history.sql
-- Makes one minute of the oldest intervals of 5 seconds that are older than an hour, and deletes the minutes that are older than a day.
-- Returns whether there may be more to do.
create or replace function fastpubsub.trim_history(p_limit integer default 5000, p_now timestamptz default null) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now bigint := floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint;
    v_minute bigint;
    v_rows bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.history as h
    where h.ctid = any(array(
        select o.ctid from fastpubsub.history as o
        where o.interval_seconds = 60 and o.at < v_now / 60 * 60 - 86400
        order by o.at
        limit p_limit
        for update skip locked
    ));
    get diagnostics v_rows = row_count;
    select min(h.at) / 60 * 60 into v_minute
    from fastpubsub.history as h where h.interval_seconds = 5 and h.at < v_now / 60 * 60 - 3600;
    with old as (
        delete from fastpubsub.history as h
        where h.interval_seconds = 5 and h.at >= v_minute and h.at < v_minute + 60
        returning h.*
    )
    insert into fastpubsub.history as h (topic_key, subscription_key, at, interval_seconds, published, delivered, acked, nacked, rejected, expired, dead_lettered, filtered)
    select
        o.topic_key, o.subscription_key, v_minute, 60,
        sum(o.published),
        sum(o.delivered),
        sum(o.acked),
        sum(o.nacked),
        sum(o.rejected),
        sum(o.expired),
        sum(o.dead_lettered),
        sum(o.filtered)
    from old as o
    group by o.topic_key, o.subscription_key
    order by o.topic_key desc, o.subscription_key
    on conflict (topic_key, subscription_key, interval_seconds, at) do update set
        published = h.published + excluded.published,
        delivered = h.delivered + excluded.delivered,
        acked = h.acked + excluded.acked,
        nacked = h.nacked + excluded.nacked,
        rejected = h.rejected + excluded.rejected,
        expired = h.expired + excluded.expired,
        dead_lettered = h.dead_lettered + excluded.dead_lettered,
        filtered = h.filtered + excluded.filtered;
    return v_minute is not null or v_rows >= p_limit;
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
    delete from fastpubsub.messages as m
    where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end;
    get diagnostics v_trimmed = row_count;
    return v_trimmed;
end;
$$;

-- functions/trim_push_attempts.sql
drop function fastpubsub.trim_push_attempts;

-- functions/unsettled_position.sql
drop function fastpubsub.unsettled_position;

-- functions/update_schedule.sql
drop function fastpubsub.update_schedule;

-- functions/update_subscription.sql
-- A null parameter keeps the present value; p_change_filter tells a filter that is removed from one that stays. The new filter judges the
-- messages ahead; messages that the old one skipped do not come back.
create or replace function fastpubsub.update_subscription(
    p_id text,
    p_change_filter boolean default false,
    p_filter json default null,
    p_ack_deadline_seconds integer default null,
    p_max_delivery_attempts integer default null,
    p_backoff_min_seconds integer default null,
    p_backoff_max_seconds integer default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    select c.* into v_cursor
    from fastpubsub.subscriptions as s
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    where s.id = p_id
    for no key update of c;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    if coalesce(p_backoff_max_seconds, v_cursor.backoff_max_seconds) < coalesce(p_backoff_min_seconds, v_cursor.backoff_min_seconds) then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    update fastpubsub.cursors as c set
        filter_path = case when p_change_filter then v_path else c.filter_path end,
        ack_deadline_seconds = coalesce(p_ack_deadline_seconds, c.ack_deadline_seconds),
        max_delivery_attempts = coalesce(p_max_delivery_attempts, c.max_delivery_attempts),
        backoff_min_seconds = coalesce(p_backoff_min_seconds, c.backoff_min_seconds),
        backoff_max_seconds = coalesce(p_backoff_max_seconds, c.backoff_max_seconds)
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
end;
$$;

-- functions/update_subscription_2.sql
drop function fastpubsub.update_subscription_2;

-- functions/update_topic.sql
create or replace function fastpubsub.update_topic(
    p_id text,
    p_retention_seconds bigint default null,
    p_change_retention boolean default true,
    p_schema json default null,
    p_change_schema boolean default false
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.heads as h set
        retention_seconds = case when p_change_retention then p_retention_seconds else h.retention_seconds end,
        schema = case when p_change_schema then p_schema else h.schema end,
        schema_version = case when p_change_schema then fastpubsub.schema_version(p_schema) else h.schema_version end
    from fastpubsub.topics as t
    where t.id = p_id and h.topic_key = t.topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/value_condition.sql
-- Returns the condition that `@` equals a scalar, or does what the one operator of an object says. A comparison with a value of another
-- type is unknown, and matches nothing; a negation has to ask for that.
create or replace function fastpubsub.value_condition(p_value json) returns text
language plpgsql immutable as $$
declare
    v_operator text;
    v_operand json;
    v_type text;
    v_operands json [];
    v_all text [] := '{}';
begin
    if json_typeof(p_value) not in ('array', 'object') then
        return format('@ == %s', p_value::jsonb);
    end if;
    if json_typeof(p_value) = 'object' and (select count(*) from json_each(p_value)) = 1 then
        select o.key, o.value, json_typeof(o.value) into v_operator, v_operand, v_type from json_each(p_value) as o;
    end if;
    if v_type = 'array' then
        v_operands := array(select json_array_elements(v_operand));
    end if;
    if v_operator = 'prefix' and v_type = 'string' then
        return format('@ starts with %s', v_operand::jsonb);
    elsif v_operator in ('suffix', 'equals-ignore-case', 'wildcard') and v_type = 'string' then
        return format('@ like_regex %s flag "s"', to_json(fastpubsub.filter_pattern(v_operator, p_value ->> v_operator)));
    elsif v_operator = 'numeric' and cardinality(v_operands) in (2, 4) then
        for v_at in 1..cardinality(v_operands) by 2 loop
            continue when v_operands[v_at]::text not in ('"="', '"<"', '"<="', '">"', '">="');
            continue when json_typeof(v_operands[v_at + 1]) <> 'number';
            v_all := v_all || format('@ %s %s', replace(v_operands[v_at] #>> '{}', '=', '=='), v_operands[v_at + 1]::jsonb);
        end loop;
        if cardinality(v_all) * 2 = cardinality(v_operands) then
            return replace(replace(array_to_string(v_all, ' && '), '>==', '>='), '<==', '<=');
        end if;
    elsif v_operator = 'anything-but' then
        v_all := array(select fastpubsub.value_condition(b.value) from fastpubsub.but_values(v_operand) as b (value));
        return '(@.type() != "array" && @.type() != "object"'
            || (select string_agg(format(' && (!(%1$s) || (%1$s) is unknown)', c), '') from unnest(v_all) as c) || ')';
    end if;
    raise exception using errcode = 'FP422', message = format('a filter cannot compare a value with %s', left(p_value::text, 100));
end;
$$;
