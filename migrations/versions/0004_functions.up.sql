-- functions/ack.sql
-- For applications: acks deliveries in the caller's own transaction, by the ack ids of a pull, so that a message is settled exactly if the
-- work for it commits. The delivery ends at the commit, where FP410 is raised, and the work rolled back, if it is no longer held. Until
-- then nobody else gets its message, at most ten minutes beyond its deadline. Takes no lock that others wait for, and does not change
-- the caller's settings. FP404: unknown subscription; FP410: no longer held; FP422: no ack ids.
create or replace function fastpubsub.ack(subscription text, ack_ids text []) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.add_settlement(ack.subscription, 'ack', ack.ack_ids, null, null);
end;
$$;

revoke execute on function fastpubsub.ack(text, text []) from public;

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
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    select c.ordered into v_ordered from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    elsif v_ordered then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    end if;
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
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
    freed := v_ordered
    and fastpubsub.free_keys(
        p_topic_key, p_subscription_key, v_taken.turns, coalesce(p_now, clock_timestamp()), v_taken.positions, v_taken.last_positions
    );
end;
$$;

-- functions/add_settlement.sql
-- Notes what the application's transaction settles when it commits (see settle_at_commit), if all of it is held now. Ack ids are the
-- rights: only who has pulled a delivery knows its token, so bare message ids are refused.
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
begin
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key
    from fastpubsub.subscriptions as s where s.id = p_subscription;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('subscription "%s" does not exist', left(p_subscription, 128)),
            hint = 'Create it first, or correct its name.';
    elsif p_action <> 'ack' and current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = 'FP422',
            message = format('a %s needs the isolation level read committed, not %s', p_action, current_setting('transaction_isolation')),
            hint = 'Do it in a transaction of its own, or over HTTP.';
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

-- functions/begin_call.sql
-- The first statement of every procedure that writes. A session cannot weaken these settings: they hold to the end of the transaction.
create or replace function fastpubsub.begin_call(p_durable boolean) returns void
language plpgsql as $$
begin
    -- At the commit of an application's transaction (settle_at_commit), whose settings are its own.
    if pg_trigger_depth() > 0 then
        return;
    end if;
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
-- Puts a new subscription, whose row in `cursors` is there, at a position of its topic, from where its filter judges, turns push on, and
-- counts as its first use.
create or replace function fastpubsub.begin_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_filter json,
    p_push json,
    p_now timestamptz default null
) returns void
language plpgsql volatile
as $$
begin
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    ) values (p_topic_key, p_subscription_key, 1, p_position, '-infinity', 0, 0, 0, 0, 0);
    insert into fastpubsub.subscription_uses (topic_key, subscription_key, used_at)
    select c.topic_key, c.subscription_key, coalesce(p_now, clock_timestamp()) from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key and c.expire_after_seconds is not null;
    perform fastpubsub.remember_filter(p_topic_key, p_subscription_key, p_position + 1, p_filter);
    if p_push is not null then
        perform fastpubsub.set_push(p_topic_key, p_subscription_key, p_push);
        perform fastpubsub.require_push_timeout(p_topic_key, p_subscription_key);
    end if;
end;
$$;

-- functions/browse_messages_2.sql
-- Looks at messages without a lease or a lock: all of a topic (p_state 'all'), or those of a subscription that are 'ahead', 'leased',
-- 'waiting' or 'dead', from p_position or p_time on. They come by position; the waiting ones by the time at which they are due, which is
-- their p_time. Backwards, which only 'all' can, come those before, the newest first. The number of rows looked at, the time, and the bytes
-- of what is returned (the first always comes) are bounded. is_found says what p_search_in, p_name and p_values find. `at` is a deadline, a
-- due time or a time of death, `note` a consumer or a reason, `since` when a message was leased, `failures` what failures_of returns.
--
-- The last row has no created_at. It says how many messages were looked at, and where this ended: at the position, and the due time, that
-- comes next, null at the end. `other_side` is where 'all' began, null when nothing is on its other side.
create or replace function fastpubsub.browse_messages_2(
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
    other_side bigint,
    ordering_key text,
    failures json,
    expires_at timestamptz
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
        select p.position, m.created_at, l.attempts, l.expires_at as at, l.consumer_id as note, l.leased_at as since, m.payload, m.attributes, m.ordering_key, m.expires_at
        from fastpubsub.leases as l
        cross join lateral generate_series(greatest(l.position, v_from), l.last_position) as p (position)
        cross join lateral (
            select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            union all
            select v.created_at, v.payload, v.attributes, v.ordering_key, null from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p.position
            limit 1
        ) as m
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position > coalesce(v_from, 0) - 100
        order by l.position, p.position;
    elsif p_state = 'waiting' then
        open v_messages for
        select r.position, m.created_at, r.attempts, r.due_at as at, r.reason as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
        from fastpubsub.retries as r
        cross join lateral (
            select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = r.position
            union all
            select v.created_at, v.payload, v.attributes, v.ordering_key, null from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
            limit 1
        ) as m
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and r.reason <> 'put aside'
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and (r.due_at, r.position) >= (coalesce(p_time, '-infinity'), coalesce(p_position, 0))
        order by r.due_at, r.position;
    elsif p_state = 'dead' then
        open v_messages for
        select d.position, d.created_at, d.attempts, d.died_at as at, d.reason as note, null::timestamptz as since, d.payload, d.attributes, d.ordering_key, null::timestamptz as expires_at
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
            select v_from into browse_messages_2.other_side from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = case when p_backwards then v_from else v_from - 1 end;
        end if;
        if p_backwards then
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
            from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position < v_from
            order by m.position desc;
        else
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
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
            or fastpubsub.is_found(
                v_message.payload, v_message.attributes, v_path, p_search_in, p_name, p_values, v_message.ordering_key
            )
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
            ordering_key := case when p_with_content then v_message.ordering_key end;
            if p_subscription_key is not null then
                failures := fastpubsub.failures_of(p_topic_key, p_subscription_key, v_message.position);
            end if;
            expires_at := v_message.expires_at;
            return next;
        end if;
    end loop;
    message_position := v_message.position;
    at := v_message.at;
    created_at := null;
    payload := null;
    attributes := null;
    ordering_key := null;
    failures := null;
    expires_at := null;
    return next;
end;
$$;

-- functions/bucket_messages.sql
-- How many messages are in the bucket of a subscription with a rate limit: all that one second brings, at least one, if it is full, as it
-- is without p_full_at. One that lacks twice as much is full as well: it had a lower rate before, or the clock was set back.
create or replace function fastpubsub.bucket_messages(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz
) returns double precision
language sql immutable
as $$
select case when b.lacks > 2 * b.size then b.size else b.size - b.lacks end
from (
    select
        greatest(p_rate_limit, 1) as size,
        p_rate_limit * greatest(coalesce(extract(epoch from p_full_at - p_now), 0)::double precision, 0) as lacks
) as b;
$$;

-- functions/bucket_refills_at.sql
-- When the bucket of bucket_messages is full again after p_taken messages of it were handed out.
create or replace function fastpubsub.bucket_refills_at(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz,
    p_taken integer
) returns timestamptz
language sql stable
as $$
select
    p_now + make_interval(
        secs => (greatest(p_rate_limit, 1) - fastpubsub.bucket_messages(p_rate_limit, p_full_at, p_now) + p_taken) / p_rate_limit
    );
$$;

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
        json_array_length(v_operand) = 0 or v_operator not in ('prefix', 'suffix', 'equals-ignore-case', 'wildcard', 'cidr')
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
-- Deletes a delayed message that waits or is held. `cancelled` says whether there was one; otherwise `published` says whether it was
-- published a while ago.
create or replace function fastpubsub.cancel_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    out cancelled boolean,
    out published boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    -- Waits for a transaction that is publishing it.
    delete from fastpubsub.delayed_messages as m where m.topic_key = p_topic_key and m.delayed_key = p_delayed_key;
    cancelled := found;
    published := not found and exists (
        select from fastpubsub.fired_messages as f where f.topic_key = p_topic_key and f.delayed_key = p_delayed_key
    );
end;
$$;

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
declare
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_now := clock_timestamp();
    update fastpubsub.redrives as r set state = 'cancelled', ended_at = v_now
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
-- What the cursor of an ordered subscription passes of a busy key is put aside, and comes all the same: so nothing can
-- be dropped there.
create or replace function fastpubsub.check_on_full(p_ordered boolean, p_on_full text) returns void
language plpgsql immutable as $$
begin
    if p_ordered and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: an ordered subscription cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
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
        loop
            v_left := least(p_limits[v_consumer], p_room - cardinality(claim_in_order.positions)) - cardinality(v_positions);
            exit when v_left = 0 or v_bytes >= p_max_bytes or not v_is_due or cardinality(v_expired) >= 1000;
            v_part := fastpubsub.take_turns(
                v_topic_key, v_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position, v_cursor.position,
                p_settings.filter_path, v_left, p_max_bytes - v_bytes, p_now
            );
            v_is_due := v_part.retry_position is not null;
            exit when not v_is_due;
            v_cursor.retry_due_at := v_part.due_at;
            v_cursor.retry_position := v_part.retry_position;
            v_positions := v_positions || v_part.positions;
            v_attempts := v_attempts || v_part.attempts;
            v_turns := v_turns || v_part.turns;
            v_bytes := v_bytes + v_part.size;
            v_cursor.routed := v_cursor.routed + v_part.routed;
            v_expired := v_expired || v_part.expired;
            v_expired_attempts := v_expired_attempts || v_part.expired_attempts;
            filtered := claim_in_order.filtered + v_part.filtered;
            unreadable := claim_in_order.unreadable || v_part.unreadable;
        end loop;
        v_retried := cardinality(v_positions);
        if
            v_left > 0 and v_bytes < p_max_bytes and v_cursor.position < v_last and (v_consumer = 1 or clock_timestamp() < v_until)
        then
            v_part := fastpubsub.read_log_in_order(
                v_topic_key, v_subscription_key, v_cursor.position, v_last, p_settings.filter_path, v_left, p_max_bytes - v_bytes,
                v_bytes = 0, v_until, p_now
            );
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
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
        )
        select
            v_topic_key, v_subscription_key, min(r.position), max(r.position), claim_in_order.token, p_now, claim_in_order.expires_at,
            r.attempts, r.revived, p_consumer_ids[v_consumer], r.turn
        from (
            select
                m.*, m.position - row_number() over (partition by m.turn, m.attempts, m.revived order by m.position) as island
            from (
                select
                    u.position, u.attempts, u.turn,
                    u.ordinal <= v_retried and exists (
                        select from fastpubsub.revived as v
                        where
                            v.topic_key = v_topic_key and v.subscription_key = v_subscription_key and v.position = u.position
                        -- Or it would read all copies, to look each one up.
                        offset 0
                    ) as revived
                from unnest(v_positions, v_attempts, v_turns) with ordinality as u (position, attempts, turn, ordinal)
            ) as m
        ) as r
        group by r.turn, r.attempts, r.revived, r.island, r.position / 100;
        positions := claim_in_order.positions || v_positions;
        attempts := claim_in_order.attempts || v_attempts;
        shares := claim_in_order.shares || cardinality(v_positions);
    end loop;
    select
        array_agg(coalesce(m.created_at, v.created_at) order by u.ordinal), array_agg(coalesce(m.payload, v.payload) order by u.ordinal),
        array_agg(coalesce(m.attributes, v.attributes) order by u.ordinal),
        array_agg(coalesce(m.ordering_key, v.ordering_key) order by u.ordinal)
    into claim_in_order.created_at, claim_in_order.payloads, claim_in_order.attributes, claim_in_order.ordering_keys
    from unnest(claim_in_order.positions) with ordinality as u (position, ordinal)
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = v_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = v_topic_key and v.subscription_key = v_subscription_key and v.position = u.position and m.payload is null
        limit 1
    ) as v on true;
    select array_agg(m.position), array_agg(m.created_at)
    into claim_in_order.unreadable, claim_in_order.unreadable_created_at
    from unnest(claim_in_order.unreadable) as u (position)
    cross join lateral (
        select m.position, m.created_at from fastpubsub.messages as m
        where m.topic_key = v_topic_key and m.position = u.position
        limit 1
    ) as m;
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
    if v_cursor.is_due then
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

    if v_limit > 0 and v_bytes < p_max_bytes and v_cursor.position < last then
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
    -- Positions are dense: what the cursor passed and nobody gets did not match.
    filtered := v_cursor.position - v_before - v_from_log;

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

-- functions/compile_filter.sql
-- Turns a filter into a strict jsonpath (lax would look inside arrays), or into null for a filter that every message passes. Its variables
-- are `$attributes`, those of the message, and `$message`, with its ordering key; passes_filter puts it to one.
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
    -- Of a filter on nothing but attributes, or the ordering key, payloads need not be read.
    if (select count(*) from json_object_keys(p_filter)) = 1 then
        if v_compiled.attributes is not null then
            return ('strict $attributes ? ' || v_compiled.attributes)::jsonpath;
        elsif v_compiled.message is not null then
            return ('strict $message ? ' || v_compiled.message)::jsonpath;
        end if;
    end if;
    return ('strict $ ? (' || v_compiled.condition || ')')::jsonpath;
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
        from fastpubsub.put_aside(p_topic_key, p_subscription_key) as a (position)
        limit p_look
    ) as a;
    is_estimated := v_looked >= p_look;
    select m.created_at into count_put_aside.oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_oldest;
end;
$$;

-- functions/create_redrive.sql
drop function fastpubsub.create_redrive;

-- functions/create_redrive_2.sql
-- Begins to reprocess or purge the dead letters that match. It leaves those alone that die later, so a message that dies again stays dead.
-- With a filter, dead letters are judged for p_milliseconds; if that does not suffice for all, `matched` is null.
-- The last p_keep ended redrives of the subscription are remembered.
create or replace function fastpubsub.create_redrive_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_action text,
    p_reason text,
    p_died_after timestamptz,
    p_died_before timestamptz,
    p_per_second integer,
    p_max_running integer,
    p_keep integer,
    p_now timestamptz default null,
    p_filter json default null,
    p_milliseconds integer default 250
) returns setof fastpubsub.redrives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_died_before timestamptz := least(p_died_before, v_now);
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_until timestamptz;
    v_letter record;
    v_matched bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    -- Before the lock, because it may take a while.
    if v_path is not null then
        v_until := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
        v_matched := 0;
        for v_letter in
            select d.payload, d.attributes, d.ordering_key from fastpubsub.dead_letters as d
            where
                d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
                and (p_reason is null or d.reason = p_reason)
                and (p_died_after is null or d.died_at >= p_died_after) and d.died_at < v_died_before
            order by d.position
        loop
            if clock_timestamp() >= v_until then
                v_matched := null;
                exit;
            elsif
                fastpubsub.is_found(v_letter.payload, v_letter.attributes, v_path, null, null, null, v_letter.ordering_key)
            then
                v_matched := v_matched + 1;
            end if;
        end loop;
    else
        select count(*) into v_matched
        from fastpubsub.dead_letters as d
        where
            d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
            and (p_reason is null or d.reason = p_reason)
            and (p_died_after is null or d.died_at >= p_died_after) and d.died_at < v_died_before;
    end if;
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
        topic_key, subscription_key, action, reason, died_after, died_before, per_second, matched, stepped_at, created_at, filter
    )
    values (
        p_topic_key, p_subscription_key, p_action, p_reason, p_died_after, v_died_before, p_per_second, v_matched, v_now, v_now,
        case when v_path is not null then p_filter end
    )
    returning r.*;
end;
$$;

-- functions/create_schedule.sql
-- Creates a schedule that fires at p_next_at for the first time; a topic has at most p_limit. p_schema_version is the version of the
-- topic's schema that the payload was checked by, as in publish_messages.
create or replace function fastpubsub.create_schedule(
    p_topic_key bigint,
    p_id text,
    p_payload json,
    p_attributes jsonb,
    p_ordering_key text,
    p_cron text,
    p_time_zone text,
    p_interval_seconds integer,
    p_catch_up text,
    p_next_at timestamptz,
    p_limit integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    if exists (select from fastpubsub.schedules as s where s.topic_key = p_topic_key and s.id = p_id) then
        raise exception using errcode = 'FP409', message = format('schedule "%s" of this topic already exists', p_id);
    elsif (select count(*) from fastpubsub.schedules as s where s.topic_key = p_topic_key) >= p_limit then
        raise exception using errcode = 'FP422', message = format('a topic has at most %s schedules', p_limit);
    end if;
    insert into fastpubsub.schedules as s (
        topic_key, id, payload, attributes, ordering_key, cron, time_zone, interval_seconds, catch_up, next_at, created_at
    ) values (
        p_topic_key, p_id, p_payload, p_attributes, p_ordering_key, p_cron, p_time_zone, p_interval_seconds, p_catch_up, p_next_at,
        coalesce(p_now, clock_timestamp())
    )
    returning s.created_at into create_schedule.created_at;
end;
$$;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;
-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds and p_max_backlog of 0 are no limit, and p_dead_letter_topic of '' no topic, as
-- null is.
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
    if p_on_dead_letter = 'hold' and not p_ordered then
        raise exception using
            errcode = 'FP422',
            message = 'on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true';
    end if;
    perform fastpubsub.check_on_full(p_ordered, p_on_full);
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
        on_expired, on_dead_letter, max_backlog, on_full
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered,
        nullif(p_max_in_flight, 0), nullif(p_rate_limit, 0), nullif(p_dead_letter_topic, ''), nullif(p_expire_after_seconds, 0),
        coalesce(p_on_expired, 'drop'), coalesce(p_on_dead_letter, 'continue'), nullif(p_max_backlog, 0), coalesce(p_on_full, 'reject')
    );
    perform fastpubsub.begin_subscription(
        create_subscription.topic_key, create_subscription.subscription_key, v_position, v_filter, p_push, p_now
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
    out outcomes smallint [],
    out turns bigint []
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

-- functions/deciding_field.sql
drop function fastpubsub.deciding_field;
-- The first field of the filter that keeps a message out. Null for a message that passes. `actual` is the value that the payload has
-- there, when it is short enough to be shown, `actual_bytes` its size, null for none; `similar_field` is a name that differs only in case.
-- A payload that cannot be read as jsonb is not `is_readable`, and passes no filter.
create or replace function fastpubsub.deciding_field(
    p_payload json,
    p_attributes jsonb,
    p_filter json,
    p_ordering_key text default null,
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
                p_payload, p_attributes, fastpubsub.compile_filter(json_build_object(v_field.key, v_field.value)), p_ordering_key
            )
        then
            field := v_field.key;
            expected := v_field.value;
            if v_field.key = '$attributes' and json_typeof(v_field.value) = 'object' then
                actual := p_attributes;
            elsif
                v_field.key = '$message' and json_typeof(v_field.value) = 'array'
                and exists (
                    select from json_array_elements(v_field.value) as e (value) where fastpubsub.is_about_message(e.value)
                )
            then
                actual := case when p_ordering_key is not null then json_build_object('ordering_key', p_ordering_key) end;
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
-- Returns the floor of a topic: what is due up to it was appended or is held. The caller holds the head, so nobody moves the floor
-- meanwhile. The first delayed message of a topic makes its first floor.
create or replace function fastpubsub.delayed_floor(p_topic_key bigint, p_now timestamptz) returns fastpubsub.fired_messages
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_floor fastpubsub.fired_messages;
begin
    select f.* into v_floor from fastpubsub.fired_messages as f
    where f.topic_key = p_topic_key
    order by f.due_at desc, f.delayed_key desc
    limit 1;
    if not found then
        update fastpubsub.heads as h set has_delayed = true where h.topic_key = p_topic_key;
        insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, created_at)
        values (p_topic_key, p_now, 0, p_now)
        returning * into v_floor;
    end if;
    return v_floor;
end;
$$;

-- functions/delete_schedule.sql
create or replace function fastpubsub.delete_schedule(p_topic_key bigint, p_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    delete from fastpubsub.schedules as s where s.topic_key = p_topic_key and s.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('this topic has no schedule "%s"', p_id);
    end if;
end;
$$;

-- functions/delete_topic.sql
-- Takes constant time in the number of messages: it deletes the names and the locked rows, and records the rest in `purges`. A topic that
-- gets the dead letters of a subscription stays.
create or replace function fastpubsub.delete_topic(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    delete from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    select c.subscription_key into v_subscription_key from fastpubsub.cursors as c where c.dead_letter_topic = p_id limit 1;
    if found then
        raise exception using
            errcode = 'FP409',
            message = format(
                'topic "%s" gets the dead letters of subscription "%s": give that another dead_letter_topic first, or none',
                p_id, (select s.id from fastpubsub.subscriptions as s where s.subscription_key = v_subscription_key)
            );
    end if;
    perform from fastpubsub.cursors as c where c.topic_key = v_topic_key order by c.subscription_key for update;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key;
    delete from fastpubsub.subscriptions as s where s.topic_key = v_topic_key;
    delete from fastpubsub.schedules as s where s.topic_key = v_topic_key;
    delete from fastpubsub.topics as t where t.topic_key = v_topic_key;
    insert into fastpubsub.purges (topic_key) values (v_topic_key);
end;
$$;

-- functions/drop_backlog.sql
-- Moves the cursor of a subscription to where no more than its max_backlog is after it. What it passes, and the filter
-- matches, counts as routed, and is dropped or becomes a dead letter: up to p_limit messages, or what a filter judges
-- in p_milliseconds; `more` says that there is more to do. What is leased or waits is behind the cursor, and stays.
create or replace function fastpubsub.drop_backlog(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limit integer default 1000,
    p_milliseconds integer default 20,
    p_now timestamptz default null,
    out dropped bigint,
    out dead_lettered integer,
    out more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_end bigint;
    v_to bigint;
    v_log record;
    v_positions bigint [];
    v_passed bigint;
begin
    perform fastpubsub.begin_call(true);
    dropped := 0;
    dead_lettered := 0;
    more := false;
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_end := fastpubsub.last_position(p_topic_key) - v_settings.max_backlog;
    if v_settings.on_full = 'reject' or (v_end > v_cursor.position) is not true then
        return;
    end if;
    if v_settings.filter_path is not null then
        v_log := fastpubsub.scan_log(
            p_topic_key, v_cursor.position, v_end, v_settings.filter_path, p_limit, v_end - v_cursor.position, p_milliseconds
        );
        v_to := v_log.scanned;
        v_positions := v_log.positions;
        v_passed := cardinality(v_positions);
    else
        v_to := case v_settings.on_full when 'dead_letter' then least(v_end, v_cursor.position + p_limit) else v_end end;
        v_passed := v_to - v_cursor.position;
    end if;
    more := v_to < v_end;
    if v_settings.on_full = 'drop_oldest' then
        dropped := v_passed;
    end if;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, leased_from,
        full_at, ttl_expired
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, v_to, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_passed, v_cursor.purged, v_cursor.dropped + drop_backlog.dropped,
        v_cursor.filtered + v_to - v_cursor.position - v_passed, v_cursor.leased_from, v_cursor.full_at, v_cursor.ttl_expired
    );
    if v_settings.on_full = 'dead_letter' and v_passed > 0 then
        v_positions := coalesce(v_positions, array(select generate_series(v_cursor.position + 1, v_to)));
        dead_lettered := fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_positions, v_positions, array_fill(0, array[v_passed::integer]),
            array_fill(null::integer, array[v_passed::integer]), array_fill('backlog full'::text, array[v_passed::integer]), 'full',
            coalesce(p_now, clock_timestamp())
        );
    end if;
end;
$$;

-- functions/due_time.sql
-- Returns when a message is due that is to come at a time or after a delay; null for one that is to come now.
create or replace function fastpubsub.due_time(p_deliver_at timestamptz, p_delay_seconds integer, p_now timestamptz)
returns timestamptz
language plpgsql immutable as $$
begin
    if p_deliver_at > p_now + interval '366 days' then
        raise exception using
            errcode = 'FP422',
            message = 'a message cannot be delayed for more than a year; publish it later, or use an earlier `deliver_at`';
    end if;
    return coalesce(p_deliver_at, p_now + make_interval(secs => p_delay_seconds));
end;
$$;

-- functions/empty_purges.sql
-- Deletes up to p_limit rows per table of one deleted topic or subscription. Returns how many rows it deleted, or null when there was
-- nothing left to delete.
create or replace function fastpubsub.empty_purges(p_limit integer default 5000) returns bigint
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
    v_deleted bigint := 0;
begin
    perform fastpubsub.begin_call(false);
    select p.* into v_purge from fastpubsub.purges as p order by p.purge_key limit 1 for update skip locked;
    if not found then
        return null;
    end if;
    foreach v_table in array array ['leases', 'endpoints', 'push_attempts', 'failures', 'retries', 'dead_letters', 'redrives', 'revived', 'claims', 'filter_history', 'subscription_uses', 'history', 'consumers', 'parked', 'busy_keys', 'idempotency_keys', 'delayed_messages', 'fired_messages', 'message_keys', 'messages'] loop
        continue when v_table in ('idempotency_keys', 'delayed_messages', 'fired_messages', 'message_keys', 'messages') and v_purge.subscription_key is not null;
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
    return v_leased + v_waiting + v_parked;
end;
$$;

-- functions/end_hold.sql
-- For a caller that holds the cursor: a dead letter does not hold its key any more. p_turn is what the dead letter
-- says of it. With p_due_at its message waits until then, in its place; else the key goes on. Returns whether it held
-- the key.
create or replace function fastpubsub.end_hold(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_turn bigint,
    p_due_at timestamptz,
    p_now timestamptz
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity' and r.position = p_position;
    if found then
        if p_due_at is null then
            perform fastpubsub.free_keys(p_topic_key, p_subscription_key, array[p_turn], p_now);
        else
            insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
            values (p_topic_key, p_subscription_key, p_due_at, p_position, 0, 'reprocessed', p_turn);
        end if;
        return true;
    end if;
    -- Behind a message of its turn that is leased or waits, and whose end frees the key.
    delete from fastpubsub.parked as p
    where
        p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn and p.position = p_position
        and p.due_at = 'infinity';
    if not found then
        return false;
    end if;
    if p_due_at is not null then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        values (p_topic_key, p_subscription_key, p_turn, p_position, p_due_at, 0, 'reprocessed');
    end if;
    return true;
end;
$$;

-- functions/expire_messages.sql
-- For a claim that holds the cursor and has left out messages that expired: makes dead letters of them when the subscription wants that,
-- and returns how many. p_attempts are those that they had.
create or replace function fastpubsub.expire_messages(
    p_settings fastpubsub.cursors,
    p_positions bigint [],
    p_attempts integer [],
    p_now timestamptz
) returns integer
language plpgsql volatile
as $$
begin
    if p_settings.on_expired = 'drop' or coalesce(cardinality(p_positions), 0) = 0 then
        return 0;
    end if;
    return fastpubsub.requeue_messages(
        p_settings.topic_key, p_settings.subscription_key, p_positions, p_positions, p_attempts,
        array_fill(null::integer, array[cardinality(p_positions)]), array_fill('expired'::text, array[cardinality(p_positions)]), 'expired',
        p_now
    );
end;
$$;

-- functions/expire_subscription.sql
-- Deletes a subscription that list_expired_subscriptions found, unless it was changed or used since.
create or replace function fastpubsub.expire_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    v_cursor := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    perform from fastpubsub.subscription_uses as u
    where
        u.topic_key = p_topic_key and u.subscription_key = p_subscription_key
        and fastpubsub.expires_at(u.used_at, v_cursor.expire_after_seconds) <= coalesce(p_now, clock_timestamp());
    if
        not found or v_cursor.paused_at is not null or v_cursor.is_pushed
        or exists (select from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key)
    then
        raise exception using errcode = 'FP409', message = 'the subscription is used again';
    end if;
    perform fastpubsub.delete_subscription(s.id) from fastpubsub.subscriptions as s where s.subscription_key = p_subscription_key;
end;
$$;

-- functions/expires_at.sql
-- When a subscription expires that nobody uses after p_used_at. What is noted of its uses is two minutes old at most.
create or replace function fastpubsub.expires_at(p_used_at timestamptz, p_expire_after_seconds integer) returns timestamptz
language sql stable
as $$
select p_used_at + make_interval(secs => p_expire_after_seconds + 120);
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
    cross join lateral fastpubsub.explain_message_2(p_topic_key, s.subscription_key, p_position, 1000) as e
    order by s.id collate "C";
end;
$$;

-- functions/explain_message_2.sql
-- What became of one message in one subscription, and why: `state` is ahead, leased, waiting, dead, settled, filtered, skipped, purged,
-- before_subscription, trimmed or unknown. Nothing is locked or written; stable, so that everything is seen at one moment. `expired_at`
-- is when the message expired, if it has, and `may_be_dropped` whether a settled one may be one that was too many. `before`: messages
-- that come first, at most p_look of them judged by the filter; `before_is_estimated` beyond. `failures`: failures_of. `held_by`: the
-- dead letter that holds the message's key, which may be itself.
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
    select c.position, c.retry_due_at, c.retry_position, s.filter, u.filter_path, u.paused_at, u.ordered, u.max_in_flight,
        u.rate_limit, c.full_at, c.dropped
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
    if v_cursor.ordered and explain_message_2.state is null then
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
    is_put_aside := v_cursor.ordered and p_position <= v_cursor.position
    and p_position in (select p from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p);
    if explain_message_2.is_put_aside then
        state := 'ahead';
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
        topic_key, subscription_key, position, last_position, token, leased_at, expires_at, attempts, revived, consumer_id, turn
    )
    select
        p_topic_key, p_subscription_key, min(t.position), max(t.last_position), t.token, t.leased_at,
        coalesce(p_now, clock_timestamp()) + make_interval(secs => p_extend_seconds[t.run]), t.attempts, t.revived, t.consumer_id, t.turn
    from (
        select
            t.*, t.position - sum(t.last_position - t.position + 1)
                over (partition by t.token, t.run, t.attempts, t.revived, t.consumer_id, t.turn order by t.position rows unbounded preceding)
            + (t.last_position - t.position) as island,
            -- Single positions were cut out of leases: join them again, up to the longest that a lease can be.
            case when t.position = t.last_position then t.position / 100 else - t.position end as part
        from unnest(
            v_taken.positions, v_taken.last_positions, v_taken.tokens, v_taken.leased_at, v_taken.attempts, v_taken.revived, v_taken.consumer_ids,
            v_taken.ordinals, v_taken.turns
        ) as t (position, last_position, token, leased_at, attempts, revived, consumer_id, run, turn)
    ) as t
    group by t.token, t.leased_at, t.run, t.attempts, t.revived, t.consumer_id, t.turn, t.island, t.part
    order by min(t.position);
    return v_taken.outcomes;
end;
$$;

-- functions/failures_of.sql
-- The deliveries of a message to a subscription that failed, the last 20 of them, the oldest first, as JSON; null for none.
create or replace function fastpubsub.failures_of(p_topic_key bigint, p_subscription_key bigint, p_position bigint) returns json
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    return (
        select array_to_json(array_agg(f.failure order by f.failure_key))
        from (
            select
                f.failure_key,
                json_strip_nulls(json_build_object(
                    'failed_at', to_char(f.failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'delivery_attempt', f.attempt, 'cause', f.cause, 'reason', f.reason, 'consumer_id', f.consumer_id
                )) as failure
            from fastpubsub.failures as f
            where f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
            order by f.failure_key desc
            limit 20
        ) as f
    );
end;
$$;

-- functions/filter_condition.sql
drop function fastpubsub.filter_condition;
-- Returns the condition of a filter on the object `@`, which p_of_message says is a whole payload, and how many fields and values it has.
-- `attributes` is the part that `$attributes` makes, and `message` that of `$message`, if it holds nothing but objects with an
-- `ordering_key`. It calls itself for nested objects and for the alternatives of `$or`, which is a field like any other when it holds no
-- objects. Each name is written once, so the result is
-- about as long as the filter. fastpubsub/filters.py refuses the same before, and explains it.
create or replace function fastpubsub.filter_condition(
    p_filter json,
    p_depth integer,
    p_of_message boolean,
    out condition text,
    out attributes text,
    out fields integer,
    out compared integer,
    out message text
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
    v_of_message text [];
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
        v_of_message := '{}';
        for v_part in select e.value, json_typeof(e.value) as type from json_array_elements(v_field.value) as e loop
            compared := filter_condition.compared + 1;
            if v_field.key = '$or' and v_part.type = 'object' then
                v_nested := fastpubsub.filter_condition(v_part.value, p_depth + 1, p_of_message);
                v_any := v_any || v_nested.condition;
                fields := filter_condition.fields + v_nested.fields;
                compared := filter_condition.compared + v_nested.compared;
            elsif p_of_message and v_field.key = '$message' and fastpubsub.is_about_message(v_part.value) then
                v_nested := fastpubsub.filter_condition(v_part.value, p_depth + 1, false);
                v_any := v_any || format('exists($message ? %s)', v_nested.condition);
                v_of_message := v_of_message || v_nested.condition;
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
        if cardinality(v_of_message) = json_array_length(v_field.value) then
            message := format('(%s)', array_to_string(v_of_message, ' || '));
        end if;
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

-- functions/find_message_2.sql
-- A message of a topic, without a lease; of one that was trimmed the copy that a dead letter has. `last` is the newest position; a message
-- at or below it without a payload was trimmed.
create or replace function fastpubsub.find_message_2(
    p_topic_key bigint,
    p_position bigint,
    out topic_id text,
    out last bigint,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    select t.id into find_message_2.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at
    into
        find_message_2.created_at, find_message_2.payload, find_message_2.attributes, find_message_2.ordering_key, find_message_2.expires_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if not found then
        select d.created_at, d.payload, d.attributes, d.ordering_key
        into find_message_2.created_at, find_message_2.payload, find_message_2.attributes, find_message_2.ordering_key
        from fastpubsub.subscriptions as s
        inner join fastpubsub.dead_letters as d on s.topic_key = d.topic_key and s.subscription_key = d.subscription_key
        where s.topic_key = p_topic_key and d.position = p_position
        limit 1;
    end if;
end;
$$;

-- functions/fire_schedule.sql
-- Publishes the message of a schedule once for each of p_times, and moves the schedule on to p_next_at, in one transaction: so each time
-- fires once, whichever process does it. When another one has done it (p_due_at, p_revision: what the caller has seen), `fired` is null,
-- and nothing is done. p_missed is how many times are given up, p_problem why. Without a p_due_at it is fired by hand, and moves nothing.
create or replace function fastpubsub.fire_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_due_at timestamptz,
    p_times timestamptz [],
    p_missed bigint,
    p_next_at timestamptz,
    p_problem text,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out fired integer,
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
    v_schedule record;
    v_now timestamptz;
    v_times timestamptz [] := p_times;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    select s.payload, s.attributes, s.ordering_key, s.next_at, s.revision into v_schedule
    from fastpubsub.schedules as s
    where s.topic_key = p_topic_key and s.id = p_id
    for no key update;
    if p_due_at is null then
        perform fastpubsub.lock_schedule(p_topic_key, p_id, null);
    elsif v_schedule.next_at is distinct from p_due_at or v_schedule.revision <> p_revision then
        return;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_due_at is null then
        v_times := array[v_now];
    end if;
    fired := cardinality(v_times);
    if fired > 0 then
        perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
        select p.first_position, p.created_at into fire_schedule.first_position, fire_schedule.created_at
        from fastpubsub.publish_messages(
            p_topic_key,
            array_fill(v_schedule.payload, array[fire_schedule.fired]),
            array(
                select
                    coalesce(v_schedule.attributes, '{}') || jsonb_build_object(
                        'schedule_id', p_id,
                        'scheduled_at', to_char(u.time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                    )
                from unnest(v_times) with ordinality as u (time, ordinal)
                order by u.ordinal
            ),
            null,
            v_now,
            case when v_schedule.ordering_key is not null then array_fill(v_schedule.ordering_key, array[fire_schedule.fired]) end
        ) as p;
    end if;
    update fastpubsub.schedules as s set
        next_at = case when p_due_at is null then s.next_at else p_next_at end,
        last_fired_at = coalesce(fire_schedule.created_at, s.last_fired_at),
        last_position = coalesce(fire_schedule.first_position + fire_schedule.fired - 1, s.last_position),
        fired = s.fired + fire_schedule.fired,
        missed = s.missed + p_missed,
        problem = p_problem
    where s.topic_key = p_topic_key and s.id = p_id;
end;
$$;

-- functions/forget_failures.sql
-- For a caller that has deleted the copies of a run of messages: deletes how their deliveries failed, unless the topic still has them.
create or replace function fastpubsub.forget_failures(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_last_position bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    -- What is trimmed is older than what is not.
    if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position) then
        return;
    end if;
    delete from fastpubsub.failures as f
    where
        f.topic_key = p_topic_key and f.subscription_key = p_subscription_key
        and f.position >= p_position and f.position <= p_last_position
        and not exists (
            select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = f.position offset 0
        );
end;
$$;

-- functions/forget_old_failures.sql
-- Deletes all but the last 20 failures of a message.
create or replace function fastpubsub.forget_old_failures(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_failure_key bigint;
begin
    select f.failure_key into v_failure_key from fastpubsub.failures as f
    where f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
    order by f.failure_key desc
    offset 20
    limit 1;
    if found then
        delete from fastpubsub.failures as f
        where
            f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
            and f.failure_key <= v_failure_key;
    end if;
end;
$$;

-- functions/forget_process.sql
-- Says that a process ends: another takes over its background work when it looks next.
create or replace function fastpubsub.forget_process(p_process bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.processes as p where p.process = p_process;
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
    v_settings record;
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
    select c as cursor, s.filter into v_settings
    from fastpubsub.cursors as c inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
    where c.topic_key = v_original.topic_key and c.subscription_key = v_original.subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_fork_of);
    end if;
    if not p_change_filter then
        v_filter := v_settings.filter;
    end if;
    v_cursor := jsonb_populate_record(v_settings.cursor, p_settings);
    v_cursor.subscription_key := subscription_key;
    v_cursor.filter_path := fastpubsub.compile_filter(v_filter);
    v_cursor.paused_at := null;
    v_cursor.is_pushed := null;
    v_cursor.max_in_flight := nullif(v_cursor.max_in_flight, 0);
    v_cursor.rate_limit := nullif(v_cursor.rate_limit, 0);
    v_cursor.dead_letter_topic := nullif(v_cursor.dead_letter_topic, '');
    perform fastpubsub.require_dead_letter_topic(p_topic_id, v_cursor.dead_letter_topic);
    v_cursor.max_backlog := nullif(v_cursor.max_backlog, 0);
    perform fastpubsub.check_on_full(v_cursor.ordered, v_cursor.on_full);
    v_cursor.expire_after_seconds := nullif(v_cursor.expire_after_seconds, 0);
    if v_cursor.backoff_max_seconds < v_cursor.backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    if v_cursor.on_dead_letter = 'hold' and not v_cursor.ordered then
        raise exception using
            errcode = 'FP422',
            message = 'on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true';
    end if;
    if v_cursor.filter_path is null then
        v_filter := null;
    end if;
    update fastpubsub.subscriptions as s set filter = v_filter where s.subscription_key = fork_subscription.subscription_key;
    insert into fastpubsub.cursors select (v_cursor).*;
    perform fastpubsub.begin_subscription(topic_key, subscription_key, v_position, v_filter, p_push, p_now);
end;
$$;

-- functions/free_keys.sql
-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription. A turn of which nothing is leased any
-- more goes on: its first parked message waits, or the first one that was put aside is due, or the key is no longer busy. Returns whether
-- there is something new to claim. A turn of 0 stands for all messages from p_positions to p_last_positions, of which each is a turn.
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

-- functions/fullest_subscription.sql
-- Of the subscriptions of a topic that reject, the one with the least room after the last position; null keys without
-- any. What a claim that has not committed took still counts.
create or replace function fastpubsub.fullest_subscription(
    p_topic_key bigint,
    p_last bigint,
    out subscription_key bigint,
    out max_backlog integer,
    out room bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    select c.subscription_key, c.max_backlog, c.max_backlog - (p_last - k.position)
    into fullest_subscription.subscription_key, fullest_subscription.max_backlog, fullest_subscription.room
    from fastpubsub.cursors as c
    cross join lateral (
        select k.position from fastpubsub.claims as k
        where k.topic_key = p_topic_key and k.subscription_key = c.subscription_key
        order by k.sequence desc limit 1
    ) as k
    where c.topic_key = p_topic_key and c.max_backlog is not null and c.on_full = 'reject'
    order by c.max_backlog - (p_last - k.position), c.subscription_key
    limit 1;
end;
$$;

-- functions/get_delayed_message.sql
-- Returns a delayed message of a topic: it waits, is held, or was published, which is known for a while; then `position` is where, and the
-- payload is null.
create or replace function fastpubsub.get_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    out state text,
    out due_at timestamptz,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out "position" bigint,
    out ttl_seconds integer,
    out expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    -- One statement: at one moment a message is in one of the two tables.
    select
        case when p.position is not null then 'published' when m.due_at <= h.held_until then 'held' else 'waiting' end,
        coalesce(m.due_at, p.due_at), coalesce(m.created_at, p.created_at), m.payload, m.attributes, m.ordering_key, p.position,
        m.ttl_seconds, m.expires_at
    into
        get_delayed_message.state, get_delayed_message.due_at, get_delayed_message.created_at, get_delayed_message.payload,
        get_delayed_message.attributes, get_delayed_message.ordering_key, get_delayed_message.position,
        get_delayed_message.ttl_seconds, get_delayed_message.expires_at
    from fastpubsub.heads as h
    left join fastpubsub.delayed_messages as m on m.topic_key = h.topic_key and m.delayed_key = p_delayed_key
    left join fastpubsub.fired_messages as p on p.topic_key = h.topic_key and p.delayed_key = p_delayed_key and p.position is not null
    where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif due_at is null then
        state := null;
    end if;
end;
$$;

-- functions/get_push_status.sql
-- How the pushing of a subscription goes: whether a process does it that said so in p_patience_seconds, and its breaker, if that is open.
-- Raises FP409 when it is not pushed.
create or replace function fastpubsub.get_push_status(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null,
    out is_held boolean,
    out failures integer,
    out breaker_opened_at timestamptz,
    out next_try_at timestamptz,
    out is_due boolean,
    out last_failure text,
    out old_secret_expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    select
        exists (
            select from fastpubsub.dispatchers as d
            where d.process = e.holder and d.seen_at > v_now - make_interval(secs => p_patience_seconds)
        ),
        coalesce(e.failures, 0), e.breaker_opened_at, e.next_try_at, e.next_try_at <= v_now, e.last_failure,
        case when e.old_secret_expires_at > v_now then e.old_secret_expires_at end
    into
        get_push_status.is_held, get_push_status.failures, get_push_status.breaker_opened_at, get_push_status.next_try_at,
        get_push_status.is_due, get_push_status.last_failure, get_push_status.old_secret_expires_at
    from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP409', message = 'the subscription is not pushed';
    end if;
end;
$$;

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
    select t.topic_key, t.id, t.created_at into get_topic.topic_key, get_topic.id, get_topic.created_at
    from fastpubsub.topics as t where t.id = p_id;
    select h.retention_seconds, h.schema into get_topic.retention_seconds, get_topic.schema
    from fastpubsub.heads as h where h.topic_key = get_topic.topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/has_room.sql
-- Whether all subscriptions of a topic have room for so many more messages; the caller holds the head.
create or replace function fastpubsub.has_room(p_topic_key bigint, p_count integer) returns boolean
language plpgsql volatile as $$
declare
    v_room bigint := (fastpubsub.fullest_subscription(p_topic_key, fastpubsub.last_position(p_topic_key))).room;
begin
    return coalesce(v_room >= p_count, true);
end;
$$;

-- functions/hold_endpoints.sql
-- Says that a dispatcher lives, and gives it its share of all endpoints: those that it holds, and those that nobody holds who has said so
-- for p_patience_seconds. It gives up what is more than its share. Returns what it
-- holds now.
create or replace function fastpubsub.hold_endpoints(
    p_process bigint,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null
)
returns table (topic_key bigint, subscription_key bigint, version bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_live bigint [];
    v_share bigint;
    v_held bigint;
begin
    if not exists (select from fastpubsub.endpoints) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    insert into fastpubsub.dispatchers as d (process, seen_at) values (p_process, v_now)
    on conflict (process) do update set seen_at = excluded.seen_at;
    select array_agg(d.process) into v_live
    from fastpubsub.dispatchers as d where d.seen_at > v_now - make_interval(secs => p_patience_seconds);
    select ceil(count(*)::numeric / cardinality(v_live)), count(*) filter (where e.holder = p_process) into v_share, v_held
    from fastpubsub.endpoints as e;
    if v_held > v_share then
        update fastpubsub.endpoints as e set holder = null
        where
            e.holder = p_process
            and (e.topic_key, e.subscription_key) in (
                select o.topic_key, o.subscription_key from fastpubsub.endpoints as o
                where o.holder = p_process
                order by o.topic_key, o.subscription_key
                offset v_share
            );
    elsif v_held < v_share then
        update fastpubsub.endpoints as e set holder = p_process
        from (
            select o.topic_key, o.subscription_key from fastpubsub.endpoints as o
            where o.holder is null or not o.holder = any(v_live)
            order by o.topic_key, o.subscription_key
            limit v_share - v_held
            for no key update skip locked
        ) as f
        where e.topic_key = f.topic_key and e.subscription_key = f.subscription_key;
    end if;
    return query
    select e.topic_key, e.subscription_key, e.version from fastpubsub.endpoints as e where e.holder = p_process;
end;
$$;

-- functions/inspect_delayed.sql
-- Counts delayed messages of all topics: that wait (an estimate above p_limit), that are held (up to p_limit), and for how many seconds
-- the first one is overdue that nobody has published. For metrics and `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_delayed(
    p_limit integer,
    p_now timestamptz default null,
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
begin
    select
        coalesce(sum(w.waiting), 0), coalesce(sum(w.held), 0),
        greatest(coalesce(extract(epoch from v_now - min(w.due_at)), 0), 0)
    into inspect_delayed.waiting, inspect_delayed.held, inspect_delayed.overdue_seconds
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
    if waiting > p_limit then
        select greatest(c.reltuples::bigint - inspect_delayed.held, inspect_delayed.waiting) into inspect_delayed.waiting
        from pg_class as c where c.oid = 'fastpubsub.delayed_messages'::regclass;
    end if;
end;
$$;

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
    cross join lateral fastpubsub.subscription_metrics_2(s.topic_key, s.subscription_key, 1) as m
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
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
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
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
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
-- Counts the processes of servers that live, and the connections that they may take together. A standby does not know any.
create or replace function fastpubsub.inspect_processes(p_now timestamptz default null, out processes bigint, out connections bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    processes := 0;
    connections := 0;
    if pg_is_in_recovery() then
        return;
    end if;
    select count(*), coalesce(sum(p.connections), 0) into inspect_processes.processes, inspect_processes.connections
    from fastpubsub.processes as p where p.expected_at > coalesce(p_now, clock_timestamp());
end;
$$;

-- functions/inspect_schedules.sql
-- Counts the schedules of all topics: that fire, that are paused, and whose last time could not be published; and for how many seconds the
-- first one is overdue. For metrics and `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_schedules(
    p_now timestamptz default null,
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
    from fastpubsub.schedules as s;
end;
$$;

-- functions/is_about_message.sql
-- Whether an object among the values of `$message` asks for the message's own ordering key. No operator has this name, so no other
-- filter does.
create or replace function fastpubsub.is_about_message(p_value json) returns boolean
language sql immutable
as $$
    select
        json_typeof(p_value) = 'object' and json_typeof(p_value -> 'ordering_key') = 'array'
        and (select count(*) from json_object_keys(p_value)) = 1;
$$;

-- functions/is_being_settled.sql
-- Whether a transaction of an application that has not ended yet settles deliveries with this token. Keeps no lock.
create or replace function fastpubsub.is_being_settled(p_token bigint) returns boolean
language plpgsql volatile
as $$
begin
    if pg_try_advisory_lock(fastpubsub.transaction_lock(p_token)) then
        perform pg_advisory_unlock(fastpubsub.transaction_lock(p_token));
        return false;
    end if;
    return true;
end;
$$;

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
    p_values text [],
    p_ordering_key text default null
) returns boolean
language plpgsql immutable
as $$
declare
    c_searched_characters constant integer := 1048576;
    v_text text;
begin
    if p_path is not null and not fastpubsub.passes_filter(p_payload, p_attributes, p_path, p_ordering_key) then
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
-- Whether the dead letter of a position, which says p_turn, holds its key: nothing of that key comes before somebody
-- reprocesses or purges the dead letter.
create or replace function fastpubsub.is_holding(p_topic_key bigint, p_subscription_key bigint, p_position bigint, p_turn bigint)
returns boolean
language sql stable
as $$
    select
        p_turn is not null
        and (
            exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity'
                    and r.position = p_position
            )
            or exists (
                select from fastpubsub.parked as p
                where
                    p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
                    and p.position = p_position and p.due_at = 'infinity'
            )
        )
$$;

-- functions/is_paused.sql
drop function fastpubsub.is_paused;
-- Whether a subscription, which must be there, hands out nothing at the moment. With p_is_push, it must be pushed or must not be.
create or replace function fastpubsub.is_paused(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_is_push boolean default null
) returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_is_paused boolean;
    v_is_pushed boolean;
begin
    select c.paused_at is not null, coalesce(c.is_pushed, false) into v_is_paused, v_is_pushed from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    if v_is_pushed <> p_is_push then
        perform fastpubsub.refuse_claim(v_is_pushed);
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
        select m.position, m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key
        order by m.position desc
        limit p_last
    loop
        exit when looked_at > 0 and clock_timestamp() >= v_until;
        looked_at := looked_at + 1;
        passes := v_path is null
        or fastpubsub.is_found(v_message.payload, v_message.attributes, v_path, null, null, null, v_message.ordering_key);
        passed := passed + passes::integer;
        if (case when passes then passed else looked_at - passed end) <= p_examples then
            select d.* into v_field
            from fastpubsub.deciding_field(
                v_message.payload, v_message.attributes, case when not passes then p_filter end, v_message.ordering_key
            ) as d;
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
    p_ordering_key text default null,
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
        p_payload, p_attributes, case when fastpubsub.compile_filter(p_filter) is not null then p_filter end, p_ordering_key
    ) as d;
end;
$$;

-- functions/limit_backlog.sql
-- Before a subscription of a topic gets a limit, and before its cursor is locked: every publish has to look from now
-- on.
create or replace function fastpubsub.limit_backlog(p_topic_key bigint, p_max_backlog integer) returns void
language plpgsql volatile
set enable_seqscan = off
as $$
begin
    if p_max_backlog > 0 then
        update fastpubsub.heads as h set has_max_backlog = true
        where h.topic_key = p_topic_key and h.has_max_backlog is not true;
    end if;
end;
$$;

-- functions/limit_reached.sql
-- Returns p_max_in_flight, which may be null, when as many messages of the subscription are leased.
create or replace function fastpubsub.limit_reached(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer
) returns integer
language plpgsql stable
as $$
declare
    v_flight record;
begin
    if p_max_in_flight is null then
        return null;
    end if;
    v_flight := fastpubsub.room_in_flight(p_topic_key, p_subscription_key, p_max_in_flight);
    return case when v_flight.room = 0 then p_max_in_flight end;
end;
$$;

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
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
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
    end if;
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

-- functions/list_dead_letters_2.sql
-- Dead letters, the oldest position first: those after p_after, or all but the first p_offset, which match: p_reason exactly, and died from
-- p_died_after on and before p_died_before; null is any. It looks at p_rows of them, beside those that it skips, and returns up to
-- p_max_bytes, but at least one.
--
-- The last row has no created_at. It says after which position the next page begins, null at the end.
create or replace function fastpubsub.list_dead_letters_2(
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
    attributes jsonb,
    ordering_key text,
    failures json
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
        ordering_key := v_letter.ordering_key;
        failures := fastpubsub.failures_of(p_topic_key, p_subscription_key, v_letter.position);
        return next;
    end loop;
    message_position := v_next;
    created_at := null;
    payload := null;
    attributes := null;
    ordering_key := null;
    failures := null;
    return next;
end;
$$;

-- functions/list_delayed_messages.sql
-- Lists delayed messages of a topic by the time at which they are due, from after a given one on, up to p_limit and p_max_bytes (at least
-- one): those that wait, or those that are held. `looked_at` is how
-- many there would be without p_max_bytes.
create or replace function fastpubsub.list_delayed_messages(
    p_topic_key bigint,
    p_held boolean,
    p_after_due_at timestamptz,
    p_after_key bigint,
    p_limit integer,
    p_max_bytes bigint,
    out delayed_key bigint,
    out due_at timestamptz,
    out created_at timestamptz,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out looked_at bigint,
    out ttl_seconds integer,
    out expires_at timestamptz
) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_after fastpubsub.fired_messages;
    v_until timestamptz := 'infinity';
begin
    if p_held then
        select h.held_after, h.held_until into v_after.due_at, v_until from fastpubsub.heads as h where h.topic_key = p_topic_key;
        v_after.delayed_key := 9223372036854775807;
    else
        select f.due_at, f.delayed_key into v_after.due_at, v_after.delayed_key
        from fastpubsub.heads as h
        left join lateral (
            select f.due_at, f.delayed_key from fastpubsub.fired_messages as f
            where f.topic_key = h.topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        ) as f on true
        where h.topic_key = p_topic_key;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif p_after_due_at >= v_after.due_at then
        v_after.due_at := p_after_due_at;
        v_after.delayed_key := p_after_key;
    end if;
    return query
    select r.delayed_key, r.due_at, r.created_at, r.payload, r.attributes, r.ordering_key, r.looked_at, r.ttl_seconds, r.expires_at
    from (
        select
            m.*, count(*) over () as looked_at,
            sum(pg_column_size(m.payload)) over (order by m.due_at, m.delayed_key) - pg_column_size(m.payload) as bytes_before
        from (
            select m.* from fastpubsub.delayed_messages as m
            where
                m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_after.due_at, v_after.delayed_key)
                and m.due_at <= v_until
            order by m.due_at, m.delayed_key
            limit p_limit
        ) as m
    ) as r
    where r.bytes_before < p_max_bytes
    order by r.due_at, r.delayed_key;
end;
$$;

-- functions/list_due_schedules.sql
-- Lists up to p_limit schedules that are due, the longest overdue first, with what is needed to reckon when they fire next. Looks back
-- p_look_back_seconds, null for any time: a row that moves on leaves its old place in the index behind, as long as anybody may see it.
create or replace function fastpubsub.list_due_schedules(
    p_limit integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null
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
    where s.next_at >= v_from and s.next_at <= v_now
    order by s.next_at
    limit p_limit;
end;
$$;

-- functions/list_due_topics.sql
-- Lists the topics that have due messages, or whose floor is older than p_mark_seconds, and says in how many seconds the next message
-- of any topic is due, and the next schedule among those that were due p_look_back_seconds ago at most. Writes nothing.
create or replace function fastpubsub.list_due_topics(
    p_mark_seconds integer,
    p_look_back_seconds double precision,
    p_now timestamptz default null,
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
begin
    select
        array_agg(h.topic_key) filter (where d.due_at <= v_now or f.created_at <= v_now - make_interval(secs => p_mark_seconds)),
        extract(epoch from min(d.due_at) - v_now)
    into list_due_topics.topic_keys, list_due_topics.due_seconds
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
    select extract(epoch from s.next_at - v_now) into list_due_topics.schedule_seconds
    from fastpubsub.schedules as s
    where s.next_at >= coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity')
    order by s.next_at
    limit 1;
end;
$$;

-- functions/list_endpoints.sql
-- The endpoints of these subscriptions, with what is sealed; an old secret as long as it is good.
create or replace function fastpubsub.list_endpoints(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
)
returns table (
    topic_key bigint,
    subscription_key bigint,
    version bigint,
    subscription_id text,
    settings json,
    headers bytea,
    secret bytea,
    old_secret bytea,
    old_seconds double precision,
    ordered boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    return query
    select
        e.topic_key, e.subscription_key, e.version, s.id, e.settings, e.headers, e.secret,
        case when e.old_secret_expires_at > v_now then e.old_secret end,
        extract(epoch from e.old_secret_expires_at - v_now)::double precision,
        c.ordered
    from unnest(p_topic_keys, p_subscription_keys) as k (topic_key, subscription_key)
    inner join fastpubsub.endpoints as e on k.topic_key = e.topic_key and k.subscription_key = e.subscription_key
    inner join fastpubsub.subscriptions as s on e.subscription_key = s.subscription_key
    inner join fastpubsub.cursors as c on e.topic_key = c.topic_key and e.subscription_key = c.subscription_key;
end;
$$;

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
            where l.expires_at > v_floor and l.expires_at <= v_now
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
-- Lists up to p_limit subscriptions that nobody has used for as long as their setting says, for expire_subscription. One that is paused or
-- pushed, or whose messages a consumer holds, counts as used; and the time in which no server called this does not count.
create or replace function fastpubsub.list_expired_subscriptions(p_limit integer default 100, p_now timestamptz default null)
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
    if v_now > v_done_at + interval '5 minutes' then
        update fastpubsub.subscription_uses as u set used_at = least(u.used_at + (v_now - v_done_at), v_now);
    end if;
    update fastpubsub.subscription_uses as u set used_at = v_now
    from fastpubsub.cursors as c
    where
        u.topic_key = c.topic_key and u.subscription_key = c.subscription_key
        and fastpubsub.expires_at(u.used_at, c.expire_after_seconds) <= v_now
        and (
            c.paused_at is not null or c.is_pushed
            or exists (
                select from fastpubsub.leases as l
                where l.topic_key = u.topic_key and l.subscription_key = u.subscription_key
                -- Or it would read all leases, to look each one up.
                offset 0
            )
        );
    return query
    select c.topic_key, c.subscription_key, s.id, c.expire_after_seconds
    from fastpubsub.subscription_uses as u
    inner join fastpubsub.cursors as c on u.topic_key = c.topic_key and u.subscription_key = c.subscription_key
    inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
    where fastpubsub.expires_at(u.used_at, c.expire_after_seconds) <= v_now
    order by u.used_at
    limit p_limit;
end;
$$;

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
set enable_sort = off
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
        from (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (0, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (0, 5, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
    ) as t
    cross join lateral (
        select
            sum(h.delivered + h.filtered) filter (where h.at < v_half) as before,
            sum(h.delivered + h.filtered) filter (where h.at >= v_half) as after
        from (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (s.subscription_key, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (s.subscription_key, 5, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
    ) as o
    where s.created_at < to_timestamp(v_from);
end;
$$;

-- functions/list_full_subscriptions.sql
-- Lists the subscriptions that have more messages before them than they may, and do not reject them, for drop_backlog.
create or replace function fastpubsub.list_full_subscriptions()
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
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
end;
$$;

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
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
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
        cross join lateral (
            select h.* from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at) >= (s.subscription_key, 5, v_from)
                and (h.subscription_key, h.interval_seconds, h.at) < (s.subscription_key, p_interval_seconds, v_to)
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        ) as h
        where h.at >= v_from and h.at < v_to
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
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
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
    cross join lateral (
        select m.created_at from fastpubsub.messages as m
        where m.topic_key = s.topic_key and m.position = n.position
        limit 1
    ) as m
    order by 3 desc
    limit p_limit;
end;
$$;

-- functions/list_loads_2.sql
-- Returns the subscriptions in which something is ahead, leased, waiting or dead, or which are paused, all at once instead of one by one:
-- for looking at the whole server. `behind` is what the log has after the cursor, which for a filter is more than what it passes. p_ids
-- holds the only ids that the caller may see, null for all. The times are those of the oldest message of each state, as far as the log has
-- it, and of the first lease that expires; `retention_seconds` is how long the topic keeps what nobody needs.
create or replace function fastpubsub.list_loads_2(p_ids text [], p_retention_seconds bigint)
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

-- functions/list_push_attempts.sql
-- The pushes of a subscription, or of one of its messages, newest first, before the one named p_before.
create or replace function fastpubsub.list_push_attempts(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_before bigint,
    p_limit integer
)
returns table (
    attempt_key bigint,
    message_position bigint,
    created_at timestamptz,
    pushed_at timestamptz,
    attempt integer,
    outcome text,
    status integer,
    milliseconds integer,
    said text
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
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    if p_position is null then
        return query
        select a.attempt_key, a.position, a.created_at, a.pushed_at, a.attempt, a.outcome, a.status, a.milliseconds, a.said
        from fastpubsub.push_attempts as a
        where
            a.topic_key = p_topic_key and a.subscription_key = p_subscription_key
            and a.attempt_key < coalesce(p_before, 9223372036854775807)
        order by a.attempt_key desc
        limit p_limit;
        return;
    end if;
    return query
    select a.attempt_key, a.position, a.created_at, a.pushed_at, a.attempt, a.outcome, a.status, a.milliseconds, a.said
    from (
        select a.* from fastpubsub.push_attempts as a
        where
            a.topic_key = p_topic_key and a.subscription_key = p_subscription_key
            and a.position >= p_position and a.position <= p_position
        -- With sorting off, only the index by position has this order.
        order by a.position
        offset 0
    ) as a
    where a.attempt_key < coalesce(p_before, 9223372036854775807)
    order by a.attempt_key desc
    limit p_limit;
end;
$$;

-- functions/list_push_metrics.sql
-- Of up to p_limit subscriptions that are pushed, for one scrape: whether the breaker is open, and whether a process pushes that said so in
-- p_patience_seconds.
create or replace function fastpubsub.list_push_metrics(
    p_limit integer,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null
) returns table (topic_id text, subscription_id text, is_open boolean, is_held boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, s.id, e.failures is not null, d.process is not null
    from fastpubsub.endpoints as e
    inner join fastpubsub.subscriptions as s on e.subscription_key = s.subscription_key
    inner join fastpubsub.topics as t on e.topic_key = t.topic_key
    left join fastpubsub.dispatchers as d
        on e.holder = d.process and d.seen_at > coalesce(p_now, clock_timestamp()) - make_interval(secs => p_patience_seconds)
    order by e.subscription_key
    limit p_limit;
end;
$$;

-- functions/list_ready_subscriptions_2.sql
-- Tells waiting consumers which of the subscriptions have something to claim, or are gone (`ready`), in how many seconds the next waiting
-- retry is due, and which are `paused`, and so never ready. `room` says how many messages a limit lets through; for 0, `due_seconds` is
-- when to look again. Each subscription is named by its place in the arrays; those with nothing to report are left out.
create or replace function fastpubsub.list_ready_subscriptions_2(
    p_topic_keys bigint [],
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
begin
    return query
    select
        s.place, s.ready and not s.paused and s.room is distinct from 0,
        case when s.paused then null when s.ready and s.room = 0 then s.limited_seconds else s.due_seconds end, s.paused,
        case when s.ready then s.room end
    from (
        select
            k.ordinal::integer as place,
            coalesce(c.is_paused, false) as paused,
            l.room,
            l.seconds as limited_seconds,
            c.position is null
            or exists (
                select from fastpubsub.messages as m where m.topic_key = k.topic_key and m.position = c.position + 1
                -- Or it would read all messages, to look each one up.
                offset 0
            )
            or exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = k.topic_key and r.subscription_key = k.subscription_key
                    and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
                offset 0
            ) as ready,
            (
                select extract(epoch from r.due_at - v_now)::double precision from fastpubsub.retries as r
                where r.topic_key = k.topic_key and r.subscription_key = k.subscription_key and r.due_at > v_now
                    and r.due_at < 'infinity'
                order by r.due_at, r.position
                limit 1
            ) as due_seconds
        from unnest(p_topic_keys, p_subscription_keys) with ordinality as k (topic_key, subscription_key, ordinal)
        left join lateral (
            select n.position, n.retry_due_at, n.retry_position, u.paused_at is not null as is_paused, u.max_in_flight, u.rate_limit
            from fastpubsub.cursors as u
            cross join lateral (
                select n.position, n.retry_due_at, n.retry_position from fastpubsub.claims as n
                where n.topic_key = u.topic_key and n.subscription_key = u.subscription_key
                order by n.sequence desc
                limit 1
            ) as n
            where u.topic_key = k.topic_key and u.subscription_key = k.subscription_key
        ) as c on true
        left join lateral (
            select r.room, r.seconds
            from fastpubsub.room_to_claim(k.topic_key, k.subscription_key, c.max_in_flight, c.rate_limit, v_now) as r
            where c.max_in_flight is not null or c.rate_limit is not null
            -- Without a limit it is not called.
            limit 1
        ) as l on true
    ) as s
    where s.ready or s.paused or s.due_seconds is not null;
end;
$$;

-- functions/list_redrives.sql
drop function fastpubsub.list_redrives;

-- functions/list_redrives_2.sql
-- Newest first; with p_redrive_key only that one.
create or replace function fastpubsub.list_redrives_2(
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
set enable_sort = off
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

-- functions/list_schedules.sql
-- Lists the schedules of a topic by id, after p_after; with p_id only that one.
create or replace function fastpubsub.list_schedules(
    p_topic_key bigint,
    p_id text,
    p_after text,
    p_limit integer
) returns table (
    id text,
    revision bigint,
    payload json,
    attributes jsonb,
    ordering_key text,
    cron text,
    time_zone text,
    interval_seconds integer,
    catch_up text,
    created_at timestamptz,
    paused_at timestamptz,
    next_at timestamptz,
    last_fired_at timestamptz,
    last_position bigint,
    fired bigint,
    missed bigint,
    problem text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
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
        s.id, s.revision, s.payload, s.attributes, s.ordering_key, s.cron, s.time_zone, s.interval_seconds, s.catch_up, s.created_at,
        s.paused_at, s.next_at, s.last_fired_at, s.last_position, s.fired, s.missed, s.problem
    from fastpubsub.schedules as s
    where
        s.topic_key = p_topic_key and (p_id is null or s.id = p_id)
        and (p_after is null or s.id collate "C" > p_after)
    order by s.id collate "C"
    limit p_limit;
end;
$$;

-- functions/list_subscription_figures_2.sql
-- Returns the metrics of the named subscriptions, each judged up to p_look messages by its filter, and per second what happened in them
-- over the last minute.
create or replace function fastpubsub.list_subscription_figures_2(
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
    filtered_rate double precision,
    ttl_expired bigint,
    held_keys bigint,
    dropped bigint
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
        r.delivered, r.acked, r.nacked, r.rejected, r.expired, r.dead_lettered, r.filtered, m.ttl_expired, m.held_keys, m.dropped
    from fastpubsub.subscriptions as s
    cross join lateral fastpubsub.subscription_metrics_2(s.topic_key, s.subscription_key, p_look) as m
    cross join lateral fastpubsub.recent_rates(s.topic_key, s.subscription_key, p_now) as r
    where s.id = any(p_ids);
end;
$$;

-- functions/list_subscription_metrics_2.sql
-- Returns the metrics of up to p_limit subscriptions for one scrape, and what each keeps of its topic beyond the retention. The caller
-- passes back, in arrays, the `judged_…` values of the call before, so that no message is judged twice. All searches together take at most
-- p_milliseconds, each at most half of the time left.
create or replace function fastpubsub.list_subscription_metrics_2(
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

-- functions/list_subscriptions_2.sql
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter.
create or replace function fastpubsub.list_subscriptions_2(
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
    on_full text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    select
        s.id, t.id, s.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, s.created_at, c.paused_at, e.settings, c.ordered, c.max_in_flight,
        c.rate_limit, c.dead_letter_topic, c.expire_after_seconds,
        case
            when c.expire_after_seconds is not null and c.paused_at is null and c.is_pushed is not true
                then (
                    select fastpubsub.expires_at(u.used_at, c.expire_after_seconds) from fastpubsub.subscription_uses as u
                    where u.topic_key = c.topic_key and u.subscription_key = c.subscription_key
                )
        end,
        c.on_expired, c.on_dead_letter, c.max_backlog, c.on_full
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    left join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    where
        (p_ids is null or s.id = any(p_ids)) and (p_topic_id is null or t.id = p_topic_id)
        and (p_part is null or strpos(lower(s.id), lower(p_part)) > 0)
        and (p_after is null or s.id collate "C" > p_after)
        and (
            not p_has_dead_letters
            or exists (
                select from fastpubsub.dead_letters as d
                where d.topic_key = s.topic_key and d.subscription_key = s.subscription_key
                -- Or it would read all dead letters, to join them.
                offset 0
            )
        )
    order by s.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;

-- functions/list_trimmable.sql
-- Lists the topics where trim_messages has work: messages past the retention, or claims, idempotency keys and places of delayed
-- messages that are no longer needed.
create or replace function fastpubsub.list_trimmable(
    p_retention_seconds bigint,
    p_window_seconds integer,
    p_now timestamptz default null
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
            or (
                select k.created_at < v_now - make_interval(secs => p_window_seconds) from fastpubsub.idempotency_keys as k
                where k.topic_key = v_head.topic_key
                order by k.created_at
                limit 1
            )
            or (
                select f.created_at < v_now - make_interval(secs => p_window_seconds) from fastpubsub.fired_messages as f
                where
                    f.topic_key = v_head.topic_key and f.position is not null
                    and f.due_at < v_now - make_interval(secs => p_window_seconds)
                order by f.due_at, f.delayed_key
                limit 1
            )
            or exists (
                select from fastpubsub.cursors as c
                cross join lateral (
                    select n.sequence from fastpubsub.claims as n
                    where n.topic_key = c.topic_key and n.subscription_key = c.subscription_key
                    order by n.sequence desc limit 1
                ) as n
                cross join lateral (
                    select o.sequence from fastpubsub.claims as o
                    where o.topic_key = c.topic_key and o.subscription_key = c.subscription_key and o.sequence = n.sequence - 1
                    limit 1
                ) as o
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
-- Locks a schedule, after the head of its topic. p_revision is the one that the caller has seen; null is any.
create or replace function fastpubsub.lock_schedule(p_topic_key bigint, p_id text, p_revision bigint) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_revision bigint;
begin
    select s.revision into v_revision from fastpubsub.schedules as s
    where s.topic_key = p_topic_key and s.id = p_id
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('this topic has no schedule "%s"', p_id);
    elsif v_revision <> p_revision then
        raise exception using
            errcode = 'FP409',
            message = format('another request has changed the schedule "%s" at the same moment; try again', p_id);
    end if;
end;
$$;

-- functions/lock_topic.sql
-- Locks the head of a topic as publishing does, and checks the version of the schema; null is any.
create or replace function fastpubsub.lock_topic(p_topic_key bigint, p_schema_version bigint) returns void
language plpgsql volatile as $$
declare
    v_schema_version bigint;
begin
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
end;
$$;

-- functions/mark_floor.sql
-- Moves the floor of a topic forward without a message. A mark takes the place of the one before. The caller holds the head.
create or replace function fastpubsub.mark_floor(p_floor fastpubsub.fired_messages, p_due_at timestamptz, p_now timestamptz)
returns fastpubsub.fired_messages
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_floor fastpubsub.fired_messages;
begin
    if p_floor.position is null then
        delete from fastpubsub.fired_messages as f
        where f.topic_key = p_floor.topic_key and f.due_at = p_floor.due_at and f.delayed_key = p_floor.delayed_key;
    end if;
    insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, created_at)
    values (p_floor.topic_key, p_due_at, 0, p_now)
    returning * into v_floor;
    return v_floor;
end;
$$;

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
    v_reads_payload boolean := p_path::text !~ '^strict \$"(attributes|message)"';
begin
    begin
        if strpos(p_path::text, '$"message"') > 0 then
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
                    and jsonb_path_exists(
                        case when v_reads_payload then m.payload::jsonb else 'null' end, p_path,
                        jsonb_build_object(
                            'attributes', m.attributes,
                            'message',
                            case when m.ordering_key is null then '{}' else jsonb_build_object('ordering_key', m.ordering_key) end
                        ),
                        true
                    )
                order by m.position
                limit p_limit
            ) as f;
        elsif strpos(p_path::text, '$"attributes"') = 0 then
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
        select m.position, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    loop
        begin
            if fastpubsub.passes_filter(v_message.payload, v_message.attributes, p_path, v_message.ordering_key) then
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
-- The id of a message, as fastpubsub/message_ids.py writes it.
create or replace function fastpubsub.message_id(p_topic_key bigint, p_position bigint, p_created_at timestamptz) returns text
language sql immutable
as $$
    select format(
        '%s-%s-7%s-%s-%s', left(i.head, 8), right(i.head, 4), lpad(to_hex(p_topic_key >> 20), 3, '0'), left(i.tail, 4), right(i.tail, 12)
    )
    from (
        select
            lpad(to_hex(floor(extract(epoch from p_created_at) * 1000)::bigint), 12, '0') as head,
            to_hex((1::bigint << 63) | ((p_topic_key & ((1 << 20) - 1)) << 42) | p_position) as tail
    ) as i;
$$;

-- functions/move_cursor.sql
-- Inserts the newest row of `claims` for a caller that holds the cursor; the floor of the retries and the bucket of the rate limit stay.
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
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered, full_at, ttl_expired
    )
    select
        p_topic_key, p_subscription_key, c.sequence + 1, p_position, c.retry_due_at, c.retry_position, p_routed, p_purged, c.dropped,
        c.filtered, c.full_at, c.ttl_expired
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
end;
$$;

-- functions/move_delayed_message.sql
-- Gives a delayed message that waits or is held another time. `due_at` is the new one, null when the message does not wait; then
-- `published` says whether it was published a while ago.
create or replace function fastpubsub.move_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    p_deliver_at timestamptz,
    p_delay_seconds integer,
    p_now timestamptz default null,
    out due_at timestamptz,
    out published boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_due_at timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_due_at := fastpubsub.due_time(p_deliver_at, p_delay_seconds, v_now);
    update fastpubsub.delayed_messages as m
    set due_at = greatest(
        v_due_at,
        (
            select f.due_at + interval '1 microsecond' from fastpubsub.fired_messages as f
            where f.topic_key = p_topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        )
    )
    where m.topic_key = p_topic_key and m.delayed_key = p_delayed_key
    returning m.due_at into move_delayed_message.due_at;
    published := not found and exists (
        select from fastpubsub.fired_messages as f where f.topic_key = p_topic_key and f.delayed_key = p_delayed_key
    );
end;
$$;

-- functions/nack.sql
-- For applications: gives deliveries back for another attempt, after delay_seconds (0 to a week; null: the backoff), with a reason of up to
-- 1,024 characters, in the caller's own transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.nack(
    subscription text,
    ack_ids text [],
    delay_seconds integer default null,
    reason text default null
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if nack.delay_seconds not between 0 and 604800 then
        raise exception using
            errcode = 'FP422', message = format('delay_seconds is 0 to 604800 (a week), not %s', nack.delay_seconds);
    elsif length(nack.reason) not between 1 and 1024 then
        raise exception using errcode = 'FP422', message = 'the reason of a nack has 1 to 1,024 characters';
    end if;
    perform fastpubsub.add_settlement(nack.subscription, 'nack', nack.ack_ids, nack.delay_seconds, nack.reason);
end;
$$;

revoke execute on function fastpubsub.nack(text, text [], integer, text) from public;

-- functions/nack_messages.sql
drop function fastpubsub.nack_messages;
-- Gives deliveries back for another attempt: each run of ids after its p_delay_seconds (null: the backoff of the subscription) and
-- with its p_reasons (null: none). The result
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
    p_reasons text [] default null,
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
            null, 'nacked', coalesce(p_now, clock_timestamp()),
            (
                select array_agg(p_reasons[t.run] order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            v_taken.turns, v_taken.consumer_ids
        );
    end if;
end;
$$;

-- functions/name_subscription.sql
-- Gives the name to a new subscription, whose cursor the caller inserts. Waits for a deletion of the topic, not for publishers.
create or replace function fastpubsub.name_subscription(
    p_id text,
    p_topic_id text,
    p_filter json,
    p_now timestamptz,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    select t.topic_key into name_subscription.topic_key from fastpubsub.topics as t where t.id = p_topic_id;
    perform from fastpubsub.heads as h where h.topic_key = name_subscription.topic_key for key share;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_topic_id);
    end if;
    insert into fastpubsub.subscriptions as s (topic_key, id, filter, created_at)
    values (name_subscription.topic_key, p_id, p_filter, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning s.subscription_key, s.created_at into name_subscription.subscription_key, name_subscription.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('subscription "%s" already exists', p_id);
    end if;
end;
$$;

-- functions/name_turns.sql
-- For a caller that holds the cursor and requeues messages of an ordered subscription: a turn of 0 becomes the message's own position, and
-- its key gets its row in busy_keys, unless more of it was put aside. Without a key there is no turn.
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
        array_agg(case when u.turn = 0 then m.position else u.turn end order by u.ordinal),
        array_agg(m.position) filter (where k.position is null and m.position is not null)
    into v_turns, v_last
    from unnest(p_positions, p_turns) with ordinality as u (position, turn, ordinal)
    left join lateral (
        select m.position, hashtextextended(m.ordering_key, 0) as key_hash from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position and u.turn = 0 and m.ordering_key is not null
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

-- functions/network_pattern.sql
-- Returns the regular expression of the addresses in an IPv4 network; null for a text that is no network, or has bits after its prefix.
create or replace function fastpubsub.network_pattern(p_network text) returns text
language sql immutable as $$
    select '^' || string_agg(
        case
            when o.bits = 8 then o.value::text
            when o.bits = 0 then '([1-9]?[0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])'
            else '(' || (select string_agg(v::text, '|') from generate_series(o.value, o.value + (1 << (8 - o.bits)) - 1) as v) || ')'
        end, '\.' order by o.ordinal
    ) || '$'
    from (
        select
            u.part::integer as value, u.ordinal,
            greatest(least(m.parts[5]::integer - 8 * (u.ordinal::integer - 1), 8), 0) as bits
        from regexp_match(p_network, '^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})/([12]?\d|3[0-2])$') as m (parts)
        cross join lateral unnest(m.parts[1:4]) with ordinality as u (part, ordinal)
    ) as o
    having bool_and(o.value <= 255 and o.value % (1 << (8 - o.bits)) = 0);
$$;

-- functions/park_after.sql
-- For a caller that holds the cursor and has parked messages of these turns: what is leased after the first parked message of a turn is
-- given back and parked too, as if it had not been delivered.
create or replace function fastpubsub.park_after(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_now timestamptz
) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_turn bigint;
    v_first bigint;
    v_lease record;
begin
    for v_turn in select distinct u.turn from unnest(p_turns) as u (turn) where u.turn is not null loop
        select p.position into v_first from fastpubsub.parked as p
        where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_turn
        order by p.position limit 1;
        continue when not found;
        -- A join of the two would be planned by wrong statistics.
        for v_lease in
            (
                select l.position, l.last_position, l.attempts from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.turn >= v_turn and l.turn <= v_turn
                    and l.turn <> l.last_position and l.position > v_first
                -- With sorting off, only the index by turn has this order.
                order by l.turn
                offset 0
            )
            union all
            select l.position, l.last_position, l.attempts from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position > greatest(v_turn - 100, v_first)
                and l.position <= v_turn and l.last_position = v_turn and l.turn = v_turn
        loop
            delete from fastpubsub.leases as l
            where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
            insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
            select p_topic_key, p_subscription_key, v_turn, p, p_now, v_lease.attempts - 1, 'returned'
            from generate_series(v_lease.position, v_lease.last_position) as p;
        end loop;
    end loop;
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
                        select l.last_position >= k.position and l.turn = 0 from fastpubsub.leases as l
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
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_position;
    end loop;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return true;
end;
$$;

-- functions/pass_expired.sql
-- For a claim that met expired messages: passes those that come next, up to 1000, without reading their payloads; with a filter, those that
-- it matches, bounded like scan_log. `scanned` is how far the cursor can move: a position up to there that is not in `expired` does not
-- match.
create or replace function fastpubsub.pass_expired(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_rows bigint,
    p_milliseconds integer,
    p_now timestamptz,
    out scanned bigint,
    out expired bigint []
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
    c_looked_at constant integer := 1000;
    v_found record;
begin
    if p_path is null then
        scanned := coalesce(
            (
                select m.position - 1 from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= least(p_last, p_after + c_looked_at)
                    and (m.expires_at <= p_now) is not true
                order by m.position
                limit 1
            ),
            least(p_last, p_after + c_looked_at)
        );
        expired := array(select generate_series(p_after + 1, pass_expired.scanned));
        return;
    end if;
    v_found := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, c_looked_at, p_rows, p_milliseconds);
    scanned := coalesce(
        (
            select u.position - 1
            from unnest(v_found.positions) with ordinality as u (position, ordinal)
            cross join lateral (
                select m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
            where (m.expires_at <= p_now) is not true
            order by u.ordinal
            limit 1
        ),
        v_found.scanned
    );
    expired := array(select u from unnest(v_found.positions) as u where u <= pass_expired.scanned);
end;
$$;

-- functions/passes_filter.sql
drop function fastpubsub.passes_filter;
-- Whether a message passes a filter. A filter on nothing but attributes, or nothing but the ordering key, does not read the payload.
create or replace function fastpubsub.passes_filter(
    p_payload json,
    p_attributes jsonb,
    p_path jsonpath,
    p_ordering_key text default null
) returns boolean
language sql immutable as $$
    select jsonb_path_exists(
        case when p_path::text ~ '^strict \$"(attributes|message)"' then 'null' else p_payload::jsonb end, p_path,
        jsonb_build_object(
            'attributes', p_attributes,
            'message', case when p_ordering_key is null then '{}' else jsonb_build_object('ordering_key', p_ordering_key) end
        ),
        true
    ) is true;
$$;

-- functions/pause_schedule.sql
-- Pauses a schedule, or resumes it with the time at which it fires next; twice is the same as once.
create or replace function fastpubsub.pause_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_next_at timestamptz default null,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    perform fastpubsub.lock_schedule(p_topic_key, p_id, p_revision);
    v_now := coalesce(p_now, clock_timestamp());
    update fastpubsub.schedules as s set
        revision = s.revision + 1,
        paused_at = case when p_next_at is null then coalesce(s.paused_at, v_now) end,
        next_at = case when p_next_at is not null then coalesce(s.next_at, p_next_at) end
    where s.topic_key = p_topic_key and s.id = p_id;
end;
$$;

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
declare
    v_keys record := fastpubsub.resolve_subscription(p_id);
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.cursors as c
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    update fastpubsub.cursors as c set paused_at = case when p_paused then coalesce(c.paused_at, v_now) end
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key;
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
    v_present jsonpath;
    v_position bigint;
    v_last bigint;
begin
    select u.filter_path into v_present from fastpubsub.cursors as u
    where u.topic_key = p_topic_key and u.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    v_position := fastpubsub.cursor_position(p_topic_key, p_subscription_key);
    v_last := fastpubsub.last_position(p_topic_key);
    select n.messages, a.messages, n.is_estimated or a.is_estimated
    into preview_filter.ahead_now, preview_filter.ahead_after, preview_filter.is_estimated
    from fastpubsub.count_ahead(p_topic_key, v_position, v_last, v_present, p_look) as n
    cross join fastpubsub.count_ahead(p_topic_key, v_position, v_last, v_path, p_look) as a;
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
    from_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_cursor.position + 1);
    to_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_to + 1);
end;
$$;

-- functions/publish.sql
drop function fastpubsub.publish;
-- For applications: publishes from the caller's own transaction, so that the message exists exactly if the transaction commits. The relay
-- of a server moves it into the log within moments of the commit; messages of one transaction keep the order of the calls. Takes no lock
-- that others wait for and does not change the caller's settings. With deliver_at the message comes at that time, and the id of the
-- delayed message is returned; otherwise null. A message that nobody has taken by expires_at, or ttl_seconds after it was published (a
-- delayed one: after it has come), is not delivered any more. The rules of the server hold: an unknown topic raises FP404; FP422 is
-- raised for a payload that is not a JSON object or could not be read later, for attributes that are not an object of strings, for an
-- ordering key that does not have 1 to 128 characters, for a time more than a year ahead, for a time to live that is
-- not 1 to 31536000 seconds or comes with expires_at, and for a topic with a schema.
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
    v_schema_version bigint;
    v_delayed_key bigint;
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

-- functions/publish_and_delay.sql
-- Stores messages in their order: those without a p_due_at in the log, from first_position on (0 when there are none), the others aside,
-- under their p_delayed_keys, or under new ones, with what says when they expire. The caller holds the head.
create or replace function fastpubsub.publish_and_delay(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_due_at timestamptz [],
    p_delayed_keys bigint [],
    p_now timestamptz,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_position bigint,
    out created_at timestamptz,
    out delayed_keys bigint []
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    v_now integer [] := array_positions(p_due_at, null);
    v_new integer [];
    v_new_keys bigint [];
    v_floor fastpubsub.fired_messages := fastpubsub.delayed_floor(p_topic_key, p_now);
begin
    first_position := 0;
    created_at := date_trunc('milliseconds', p_now);
    if cardinality(v_now) > 0 then
        select p.first_position, p.created_at into publish_and_delay.first_position, publish_and_delay.created_at
        from fastpubsub.publish_messages(
            p_topic_key,
            array(select p_payloads[u.place] from unnest(v_now) as u (place)),
            array(select p_attributes[u.place] from unnest(v_now) as u (place)),
            null,
            p_now,
            array(select p_ordering_keys[u.place] from unnest(v_now) as u (place)),
            array(select p_ttl_seconds[u.place] from unnest(v_now) as u (place)),
            array(select p_expires_at[u.place] from unnest(v_now) as u (place))
        ) as p;
    end if;
    -- What is due at or before the floor becomes due right after it, so that no message stays behind.
    insert into fastpubsub.delayed_messages (
        topic_key, delayed_key, due_at, created_at, payload, attributes, ordering_key, ttl_seconds, expires_at
    )
    select
        p_topic_key, u.delayed_key, greatest(u.due_at, v_floor.due_at + interval '1 microsecond'), publish_and_delay.created_at,
        u.payload, p_attributes[u.place], p_ordering_keys[u.place], p_ttl_seconds[u.place], p_expires_at[u.place]
    from unnest(p_delayed_keys, p_due_at, p_payloads) with ordinality as u (delayed_key, due_at, payload, place)
    where u.due_at is not null and u.delayed_key is not null;
    delayed_keys := coalesce(p_delayed_keys, array_fill(null::bigint, array[cardinality(p_due_at)]));
    v_new := array(
        select u.place::integer
        from unnest(p_due_at, publish_and_delay.delayed_keys) with ordinality as u (due_at, delayed_key, place)
        where u.due_at is not null and u.delayed_key is null
        order by u.place
    );
    with stored as (
        insert into fastpubsub.delayed_messages (
            topic_key, due_at, created_at, payload, attributes, ordering_key, ttl_seconds, expires_at
        )
        select
            p_topic_key, greatest(p_due_at[u.place], v_floor.due_at + interval '1 microsecond'), publish_and_delay.created_at,
            p_payloads[u.place], p_attributes[u.place], p_ordering_keys[u.place], p_ttl_seconds[u.place], p_expires_at[u.place]
        from unnest(v_new) with ordinality as u (place, ordinal)
        order by u.ordinal
        returning delayed_key
    )

    select array_agg(s.delayed_key order by s.delayed_key) into v_new_keys
    from stored as s;
    for i in 1..cardinality(v_new) loop
        delayed_keys[v_new[i]] := v_new_keys[i];
    end loop;
end;
$$;

-- functions/publish_dead_letters.sql
-- For a caller that holds the cursor and has made these messages dead letters: publishes copies of them to a topic, by the outbox, so that
-- no lock of that topic is needed here. A message that is such a copy itself is not published again, so no two subscriptions can send one
-- around for ever. A topic that is gone gets none.
create or replace function fastpubsub.publish_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_topic_id text
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_target bigint;
    v_subscription_id text;
    v_position bigint;
    v_letter fastpubsub.dead_letters;
begin
    select t.topic_key into v_target from fastpubsub.topics as t where t.id = p_topic_id;
    if not found then
        return;
    end if;
    select s.id into v_subscription_id from fastpubsub.subscriptions as s where s.subscription_key = p_subscription_key;
    for v_position in select p from unnest(p_positions) as p order by p loop
        select d.* into v_letter from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
        if v_letter.attributes is null or not v_letter.attributes ? 'dead_letter_message_id' then
            insert into fastpubsub.outbox (transaction_id, topic_key, payload, attributes, ordering_key)
            values (
                pg_current_xact_id(), v_target, v_letter.payload,
                coalesce(v_letter.attributes, '{}') || jsonb_build_object(
                    'dead_letter_message_id', fastpubsub.message_id(p_topic_key, v_position, v_letter.created_at),
                    'dead_letter_subscription_id', v_subscription_id,
                    'dead_letter_reason', left(v_letter.reason, 1024),
                    'dead_letter_delivery_attempts', v_letter.attempts::text
                ),
                v_letter.ordering_key
            );
        end if;
    end loop;
end;
$$;

-- functions/publish_delayed_messages.sql
-- Like publish_messages_once, for requests with at least one delayed message: p_deliver_at and p_delay_seconds say of each message when it
-- is to come, both null for now. Without an idempotency key, p_keys has null. What comes now gets the positions from first_positions on;
-- `delayed_keys` has, for all messages in their order, the keys of those that are delayed.
create or replace function fastpubsub.publish_delayed_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_deliver_at timestamptz [],
    p_delay_seconds integer [],
    p_counts integer [],
    p_clients text [],
    p_keys text [],
    p_body_hashes bytea [],
    p_window_seconds integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_positions bigint [],
    out created_at timestamptz [],
    out delayed_keys bigint []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_has_max_backlog boolean;
    v_last bigint;
    v_stored_now integer;
    v_now timestamptz;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_stored record;
    v_due_at timestamptz [];
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version, h.has_max_backlog into v_schema_version, v_has_max_backlog
    from fastpubsub.heads as h where h.topic_key = p_topic_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if v_has_max_backlog then
        v_last := fastpubsub.last_position(p_topic_key);
    end if;
    for i in 1..cardinality(p_counts) loop
        select k.* into v_known from fastpubsub.idempotency_keys as k
        where
            k.topic_key = p_topic_key
            and (k.client, k.key) >= (p_clients[i], p_keys[i]) and (k.client, k.key) <= (p_clients[i], p_keys[i])
        order by k.client, k.key
        limit 1;
        if found and v_known.created_at > v_now - make_interval(secs => p_window_seconds) then
            first_positions[i] := case when v_known.body_hash = p_body_hashes[i] then v_known.first_position end;
            created_at[i] := v_known.created_at;
            delayed_keys := delayed_keys || case
                when first_positions[i] is null then array_fill(null::bigint, array[p_counts[i]])
                else v_known.delayed_keys
            end;
        else
            select array_agg(fastpubsub.due_time(u.deliver_at, u.delay_seconds, v_now) order by u.place)
            into v_due_at
            from unnest(
                p_deliver_at[v_offset + 1 : v_offset + p_counts[i]], p_delay_seconds[v_offset + 1 : v_offset + p_counts[i]]
            ) with ordinality as u (deliver_at, delay_seconds, place);
            v_stored := fastpubsub.publish_and_delay(
                p_topic_key,
                p_payloads[v_offset + 1 : v_offset + p_counts[i]],
                p_attributes[v_offset + 1 : v_offset + p_counts[i]],
                p_ordering_keys[v_offset + 1 : v_offset + p_counts[i]],
                v_due_at,
                null,
                v_now,
                p_ttl_seconds[v_offset + 1 : v_offset + p_counts[i]],
                p_expires_at[v_offset + 1 : v_offset + p_counts[i]]
            );
            first_positions[i] := v_stored.first_position;
            created_at[i] := v_stored.created_at;
            delayed_keys := delayed_keys || v_stored.delayed_keys;
            if p_keys[i] is not null then
                insert into fastpubsub.idempotency_keys as k (
                    topic_key, client, key, body_hash, first_position, message_count, created_at, delayed_keys
                ) values (
                    p_topic_key, p_clients[i], p_keys[i], p_body_hashes[i], v_stored.first_position, p_counts[i],
                    v_stored.created_at, v_stored.delayed_keys
                )
                on conflict (topic_key, client, key) do update set
                    body_hash = excluded.body_hash,
                    first_position = excluded.first_position,
                    message_count = excluded.message_count,
                    created_at = excluded.created_at,
                    delayed_keys = excluded.delayed_keys;
            end if;
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    if v_has_max_backlog then
        v_stored_now := fastpubsub.last_position(p_topic_key) - v_last;
        perform fastpubsub.require_room(p_topic_key, v_last, v_stored_now, v_stored_now < cardinality(p_payloads));
    end if;
end;
$$;

-- functions/publish_due_messages.sql
-- Appends up to p_limit delayed messages that are due to their topic, in the order of their times, in one transaction, so each arrives
-- once. Their time to live counts from now on. `more` says whether there may be further ones. When nobody has done this for longer than
-- p_max_overdue_seconds (no server ran, or an old dump was restored), the floor passes what is overdue by more: it is held until somebody
-- releases, moves or cancels it.
create or replace function fastpubsub.publish_due_messages(
    p_topic_key bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_max_overdue_seconds bigint,
    p_mark_seconds integer,
    p_now timestamptz default null,
    out topic_id text,
    out published integer,
    out more boolean
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
    v_floor fastpubsub.fired_messages;
    v_oldest timestamptz;
    v_delayed_keys bigint [];
    v_due_at timestamptz [];
    v_payloads json [];
    v_attributes jsonb [];
    v_ordering_keys text [];
    v_ttl_seconds integer [];
    v_expires_at timestamptz [];
    v_looked_at bigint;
    v_taken bigint;
    v_appended record;
begin
    perform fastpubsub.begin_call(true);
    published := 0;
    more := false;
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        return;
    end if;
    select t.id into publish_due_messages.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    v_now := coalesce(p_now, clock_timestamp());
    v_floor := fastpubsub.delayed_floor(p_topic_key, v_now);
    v_oldest := v_now - make_interval(secs => p_max_overdue_seconds);
    if v_floor.created_at < v_oldest and v_floor.due_at < v_oldest then
        update fastpubsub.heads as h set held_after = coalesce(h.held_after, v_floor.due_at), held_until = v_oldest
        where
            h.topic_key = p_topic_key
            and (
                select m.due_at from fastpubsub.delayed_messages as m
                where
                    m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                    and m.due_at <= v_oldest
                order by m.due_at, m.delayed_key
                limit 1
            ) is not null;
        v_floor := fastpubsub.mark_floor(v_floor, v_oldest, v_now);
    end if;
    with looked_at as materialized (
        select d.ctid, sum(d.bytes) over (order by d.due_at, d.delayed_key) - d.bytes as bytes_before
        from (
            select m.ctid, m.due_at, m.delayed_key, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as bytes
            from fastpubsub.delayed_messages as m
            where
                m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                and m.due_at <= v_now
            order by m.due_at, m.delayed_key
            limit p_limit
        ) as d
    ),
    taken as (
        delete from fastpubsub.delayed_messages as m
        using looked_at as l
        where m.topic_key = p_topic_key and m.ctid = l.ctid and l.bytes_before < p_max_bytes
        returning m.due_at, m.delayed_key, m.payload, m.attributes, m.ordering_key, m.ttl_seconds, m.expires_at
    )

    select
        array_agg(t.delayed_key order by t.due_at, t.delayed_key),
        array_agg(t.due_at order by t.due_at, t.delayed_key),
        array_agg(t.payload order by t.due_at, t.delayed_key),
        array_agg(t.attributes order by t.due_at, t.delayed_key),
        array_agg(t.ordering_key order by t.due_at, t.delayed_key),
        array_agg(t.ttl_seconds order by t.due_at, t.delayed_key),
        array_agg(t.expires_at order by t.due_at, t.delayed_key),
        (select count(*) from looked_at as l),
        (select count(*) from looked_at as l where l.bytes_before < p_max_bytes)
    into
        v_delayed_keys, v_due_at, v_payloads, v_attributes, v_ordering_keys, v_ttl_seconds, v_expires_at, v_looked_at, v_taken
    from taken as t;
    more := v_looked_at = p_limit or v_looked_at > v_taken;
    published := coalesce(cardinality(v_payloads), 0);
    if published > 0 then
        v_appended := fastpubsub.publish_messages(
            p_topic_key, v_payloads, v_attributes, null, v_now, v_ordering_keys, v_ttl_seconds, v_expires_at
        );
        insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, position, created_at)
        select p_topic_key, u.due_at, u.delayed_key, v_appended.first_position + u.ordinal - 1, v_appended.created_at
        from unnest(v_due_at, v_delayed_keys) with ordinality as u (due_at, delayed_key, ordinal);
    elsif not more and v_floor.created_at <= v_now - make_interval(secs => p_mark_seconds) and v_floor.due_at < v_now then
        perform fastpubsub.mark_floor(v_floor, v_now, v_now);
    end if;
end;
$$;

-- functions/publish_messages.sql
drop function fastpubsub.publish_messages;
-- Appends to a topic. The payloads get the positions first_position, first_position + 1, … and one creation time (to
-- the millisecond, as message ids carry it). The row lock on the head, held to the commit, makes every position visible
-- before the next is given out. p_schema_version is the version of the topic's schema that the payloads were checked
-- by, 0 for no schema; when it is not the current one, FP428 is raised and nothing is stored. Null: the payloads were
-- accepted earlier, and no backlog is too long for them. Without p_ordering_keys no message has one. A message expires
-- at its p_expires_at, or its p_ttl_seconds after its creation; with null in both, never.
create or replace function fastpubsub.publish_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    p_ordering_keys text [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
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
    v_has_max_backlog boolean;
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version, h.has_max_backlog into v_schema_version, v_has_max_backlog
    from fastpubsub.heads as h where h.topic_key = p_topic_key
    for no key update;
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
    if v_has_max_backlog and p_schema_version is not null then
        perform fastpubsub.require_room(p_topic_key, publish_messages.first_position - 1, cardinality(p_payloads));
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_key, publish_messages.first_position + u.ordinal - 1, publish_messages.created_at, u.payload, u.attributes,
        p_ordering_keys[u.ordinal],
        coalesce(
            p_expires_at[u.ordinal], publish_messages.created_at + make_interval(secs => p_ttl_seconds[u.ordinal])
        )
    from unnest(p_payloads, p_attributes) with ordinality as u (payload, attributes, ordinal);
    if p_ordering_keys is not null then
        perform fastpubsub.store_keys(p_topic_key, publish_messages.first_position, p_ordering_keys);
    end if;
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
    p_ordering_keys text [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_positions bigint [],
    out created_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_has_max_backlog boolean;
    v_now timestamptz;
    v_created_at timestamptz;
    v_next bigint;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_payloads json [] := '{}';
    v_attributes jsonb [] := '{}';
    v_ordering_keys text [] := '{}';
    v_ttl_seconds integer [] := '{}';
    v_expires_at timestamptz [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version, h.has_max_backlog into v_schema_version, v_has_max_backlog
    from fastpubsub.heads as h where h.topic_key = p_topic_key
    for no key update;
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
        where
            k.topic_key = p_topic_key
            and (k.client, k.key) >= (p_clients[i], p_keys[i]) and (k.client, k.key) <= (p_clients[i], p_keys[i])
        order by k.client, k.key
        limit 1;
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
            v_ordering_keys := v_ordering_keys || p_ordering_keys[v_offset + 1 : v_offset + p_counts[i]];
            v_ttl_seconds := v_ttl_seconds || p_ttl_seconds[v_offset + 1 : v_offset + p_counts[i]];
            v_expires_at := v_expires_at || p_expires_at[v_offset + 1 : v_offset + p_counts[i]];
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    if v_has_max_backlog then
        perform fastpubsub.require_room(
            p_topic_key, v_next - cardinality(v_payloads) - 1, cardinality(v_payloads),
            cardinality(v_payloads) < cardinality(p_payloads)
        );
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_key, v_next - cardinality(v_payloads) + u.ordinal - 1, v_created_at, u.payload, u.attributes,
        v_ordering_keys[u.ordinal],
        coalesce(v_expires_at[u.ordinal], v_created_at + make_interval(secs => v_ttl_seconds[u.ordinal]))
    from unnest(v_payloads, v_attributes) with ordinality as u (payload, attributes, ordinal)
    where u.ordinal <= cardinality(v_payloads);
    if p_ordering_keys is not null then
        perform fastpubsub.store_keys(p_topic_key, v_next - cardinality(v_payloads), v_ordering_keys);
    end if;
end;
$$;

-- functions/publish_to_topics.sql
drop function fastpubsub.publish_to_topics;
-- Like publish_messages, for several topics in one transaction. p_places says for each payload which of p_topic_keys it is for; the
-- payloads of one topic follow each other, after p_offsets others. Waits for no lock: when another call is publishing to a topic at this
-- moment, or a topic is gone, or full, or its schema is another one, that topic gets null and nothing is stored in it; publish_messages
-- then gives the reason.
create or replace function fastpubsub.publish_to_topics(
    p_topic_keys bigint [],
    p_schema_versions bigint [],
    p_offsets integer [],
    p_places integer [],
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_now timestamptz default null,
    p_ordering_keys text [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
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
        select u.place, h.has_max_backlog
        from unnest(p_topic_keys, p_schema_versions) with ordinality as u (topic_key, schema_version, place)
        inner join fastpubsub.heads as h on h.topic_key = u.topic_key and h.schema_version = u.schema_version
        for no key update of h skip locked
    )

    select array_agg(l.place) into v_places
    from locked as l
    where
        l.has_max_backlog is not true
        or fastpubsub.has_room(
            p_topic_keys[l.place], coalesce(p_offsets[l.place + 1], cardinality(p_payloads)) - p_offsets[l.place]
        );
    v_now := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select
        array_agg(case when u.place = any(v_places) then coalesce(m.position + 1, 1) end order by u.place),
        array_agg(case when u.place = any(v_places) then greatest(v_now, m.created_at) end order by u.place)
    into publish_to_topics.first_positions, publish_to_topics.created_at
    from unnest(p_topic_keys) with ordinality as u (topic_key, place)
    left join lateral (
        select m.position, m.created_at from fastpubsub.messages as m where m.topic_key = u.topic_key order by m.position desc limit 1
    ) as m on true;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes, ordering_key, expires_at)
    select
        p_topic_keys[u.place],
        publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place],
        publish_to_topics.created_at[u.place],
        u.payload,
        u.attributes,
        p_ordering_keys[u.ordinal],
        coalesce(
            p_expires_at[u.ordinal],
            publish_to_topics.created_at[u.place] + make_interval(secs => p_ttl_seconds[u.ordinal])
        )
    from unnest(p_payloads, p_attributes, p_places) with ordinality as u (payload, attributes, place, ordinal)
    where publish_to_topics.first_positions[u.place] is not null;
    if p_ordering_keys is not null then
        insert into fastpubsub.message_keys (topic_key, key_hash, position)
        select
            p_topic_keys[u.place], hashtextextended(u.ordering_key, 0),
            publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place]
        from unnest(p_ordering_keys, p_places) with ordinality as u (ordering_key, place, ordinal)
        where publish_to_topics.first_positions[u.place] is not null and u.ordering_key is not null;
    end if;
end;
$$;

-- functions/purge_dead_letters.sql
drop function fastpubsub.purge_dead_letters;
-- Deletes dead letters for good; the keys that they hold go on. Returns the positions that it deleted.
create or replace function fastpubsub.purge_dead_letters(
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
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
    v_turn bigint;
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
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position
        returning d.turn into v_turn;
        if v_turn is not null then
            perform fastpubsub.end_hold(
                p_topic_key, p_subscription_key, v_position, v_turn, null, coalesce(p_now, clock_timestamp())
            );
        end if;
        perform fastpubsub.forget_failures(p_topic_key, p_subscription_key, v_position, v_position);
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
    if v_settings.ordered then
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
    if v_settings.ordered then
        purged := purged + v_aside.messages;
        is_estimated := is_estimated or v_aside.is_estimated;
    end if;
end;
$$;

-- functions/put_aside.sql
-- The messages that an ordered subscription has put aside, turn by turn, whether they pass the filter or not.
create or replace function fastpubsub.put_aside(p_topic_key bigint, p_subscription_key bigint) returns setof bigint
language sql stable
as $$
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
$$;

-- functions/rate_reached.sql
-- Returns p_rate_limit, which may be null, when consumers take messages as fast as it lets them: so much is missing in the bucket.
create or replace function fastpubsub.rate_reached(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz
) returns double precision
language sql immutable
as $$
select
    case
        when fastpubsub.bucket_messages(p_rate_limit, p_full_at, p_now) < greatest(p_rate_limit / 2, 1)
            then p_rate_limit
    end;
$$;

-- functions/read_ack_ids.sql
-- Reads the ack ids of an application: a message id, whose bits are those of fastpubsub/message_ids.py, and the token of the delivery.
-- Those of another topic are left out: they are held by nobody here. FP422: texts that are no ack ids, the same one twice, too many.
create or replace function fastpubsub.read_ack_ids(
    p_topic_key bigint,
    p_ack_ids text [],
    out positions bigint [],
    out tokens bigint []
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    c_shape constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[.][0-9a-f]{16}$';
    v_wrong bigint;
begin
    if p_ack_ids is null or cardinality(p_ack_ids) not between 1 and 1000 then
        raise exception using errcode = 'FP422', message = 'pass an array of 1 to 1,000 ack ids';
    end if;
    select min(u.ordinal) into v_wrong
    from unnest(p_ack_ids) with ordinality as u (ack_id, ordinal)
    where u.ack_id is null or u.ack_id !~* c_shape;
    if v_wrong is not null then
        raise exception using
            errcode = 'FP422',
            message = format('the text %s of the array is no ack id', v_wrong),
            hint = 'Pass the `ack_id` of a message that was pulled, not its `id`.';
    elsif (select count(distinct lower(u)) < count(*) from unnest(p_ack_ids) as u) then
        raise exception using errcode = 'FP422', message = 'the array has an ack id twice';
    end if;
    select coalesce(array_agg(i.low & 4398046511103), '{}'), coalesce(array_agg(i.token), '{}') into positions, tokens
    from (
        select
            ('x' || substr(u.digits, 14, 3))::bit(12)::integer::bigint << 20 as topic_high,
            ('x' || substr(u.digits, 17, 16))::bit(64)::bigint as low,
            ('x' || substr(u.digits, 33, 16))::bit(64)::bigint as token
        from (select translate(a, '-.', '') as digits from unnest(p_ack_ids) as a) as u
    ) as i
    where (i.topic_high | (i.low >> 42 & 1048575)) = p_topic_key;
end;
$$;

-- functions/read_clock.sql
-- Returns the time of the database. The times of a schedule are reckoned from it, by a library outside of the database.
create or replace function fastpubsub.read_clock(p_now timestamptz default null) returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(p_now, clock_timestamp());
end;
$$;

-- functions/read_log.sql
drop function fastpubsub.read_log;
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

-- functions/read_log_in_order.sql
-- For a claim of an ordered subscription: reads the log after p_after, up to p_limit messages and p_max_bytes (with p_at_least_one, the
-- first one whatever its size), and until p_until. The messages of a key that is busy are put aside. `turns` are those of the keys, which
-- are busy from now on: 0 for a message that is all of its key, or has none. `scanned` is how far the cursor can move, past those in
-- `expired`, which had nothing of their key before them.
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
    out positions bigint [],
    out turns bigint [],
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
    c_step constant bigint := 4096;
    c_expired constant integer := 1000;
    -- Before it, messages may have been trimmed, and be left for vacuum.
    v_first bigint := fastpubsub.first_position(p_topic_key, p_last);
    v_step bigint := p_limit;
    v_to bigint;
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_busy bigint;
    v_is_full boolean;
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
        with stretch as (
            select
                m.position, hashtextextended(m.ordering_key, 0) as key_hash,
                pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true as is_expired
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > read_log_in_order.scanned and m.position <= v_to
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
                                and k.position >= v_first
                            order by k.position desc limit 1
                        ) as k
                        where
                            (
                                select b.position from fastpubsub.busy_keys as b
                                where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = k.position
                                limit 1
                            ) is not null
                            or (
                                select l.last_position >= k.position and l.turn = 0 from fastpubsub.leases as l
                                where
                                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                                    and l.position > k.position - 100 and l.position <= k.position
                                order by l.position desc limit 1
                            )
                            or k.position = any(read_log_in_order.positions)
                    ) end
                ) over (partition by f.key_hash) as busy
            from firsts as f
        ),
        open as (
            select
                m.*, m.busy is null and (p_path is null or m.position in (select f from unnest(v_matching) as f)) as is_open
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
                c.is_open and not c.is_expired and c.ordinal <= p_limit - cardinality(read_log_in_order.positions)
                and (
                    c.running <= p_max_bytes - read_log_in_order.size
                    or (p_at_least_one and c.ordinal = 1 and read_log_in_order.size = 0)
                ) as is_taken
            from counted as c
        ),
        reach as materialized (
            select
                count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken) as is_full,
                case
                    when
                        count(*) filter (where t.is_open and not t.is_expired) > count(*) filter (where t.is_taken)
                        or count(*) filter (where t.is_taken) = p_limit - cardinality(read_log_in_order.positions)
                        then coalesce(max(t.position) filter (where t.is_taken), read_log_in_order.scanned)
                    else v_to
                end as position
            from taken as t
        )
        select
            (select r.position from reach as r) as scanned,
            (select r.is_full from reach as r) as is_full,
            sum(p.size) filter (where p.is_taken) as size,
            array_agg(p.position order by p.position) filter (where p.is_taken) as positions,
            array_agg(case when p.key_hash is null or p.is_single then 0 else p.tail end order by p.position)
                filter (where p.is_taken) as turns,
            count(*) filter (where p.busy is null and not p.is_taken and not (p.is_open and p.is_expired)) as filtered,
            array_agg(p.position order by p.position) filter (where p.is_open and p.is_expired) as expired,
            array_agg(p.busy order by p.busy) filter (where p.busy is not null and p.position = p.tail) as busy,
            array_agg(p.tail order by p.busy) filter (where p.busy is not null and p.position = p.tail) as tails
        into v_read
        from (
            select
                t.*, max(t.position) over same_key as tail,
                max(t.position) over same_key = t.position and count(*) filter (where t.is_taken) over same_key = 1 as is_single
            from taken as t
            where t.position <= (select r.position from reach as r)
            window same_key as (partition by t.key_hash)
        ) as p;
        -- A join with the array would be planned by wrong statistics.
        foreach v_busy in array coalesce(v_read.busy, '{}') loop
            delete from fastpubsub.busy_keys as b
            where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_busy;
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
end;
$$;

-- functions/read_matching_log.sql
drop function fastpubsub.read_matching_log;
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

-- functions/read_messages_2.sql
-- Follows a topic: returns up to p_limit messages after p_after, without a lease, bounded by bytes (the first always comes). With a null
-- p_after it returns only `last`, the newest position. `missed` says whether trimming took messages after p_after before they were read.
-- What has expired is left out; `scanned` is how far this came.
create or replace function fastpubsub.read_messages_2(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz default null,
    out last bigint,
    out missed boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out scanned bigint
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    missed := false;
    if v_after is null or v_after >= read_messages_2.last then
        return;
    end if;
    if
        not exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_after + 1)
    then
        missed := true;
        v_after := fastpubsub.first_position(p_topic_key, read_messages_2.last) - 1;
    end if;
    select
        array_agg(t.position order by t.position) filter (where t.is_live),
        array_agg(t.created_at order by t.position) filter (where t.is_live),
        array_agg(t.payload order by t.position) filter (where t.is_live),
        array_agg(t.attributes order by t.position) filter (where t.is_live),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key order by t.position) filter (where t.is_live) end,
        max(t.position)
    into read_messages_2.positions, read_messages_2.created_at, read_messages_2.payloads, read_messages_2.attributes,
        read_messages_2.ordering_keys, read_messages_2.scanned
    from (
        select
            m.position, m.created_at, m.payload, m.attributes, m.ordering_key, (m.expires_at <= v_now) is not true as is_live,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > v_after and m.position <= v_after + p_limit
        order by m.position
    ) as t
    where t.running <= p_max_bytes or t.position = v_after + 1;
end;
$$;

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
set enable_sort = off
set jit = off
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
    from (
        select h.* from fastpubsub.history as h
        where
            h.topic_key = p_topic_key
            and (h.subscription_key, h.interval_seconds, h.at) >= (p_subscription_key, 5, v_to - 60)
            and (h.subscription_key, h.interval_seconds, h.at) < (p_subscription_key, 5, v_to)
        -- With sorting off, only the index by topic has this order.
        order by h.subscription_key, h.interval_seconds, h.at
        offset 0
    ) as h;
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
begin
    perform fastpubsub.begin_call(false);
    update fastpubsub.endpoints as e set
        breaker_opened_at = case when u.failures > 0 then coalesce(e.breaker_opened_at, v_now) end,
        failures = nullif(u.failures, 0),
        next_try_at = case when u.failures > 0 then v_now + make_interval(secs => u.seconds) end,
        last_failure = case when u.failures > 0 then u.reason end
    from
        unnest(p_topic_keys, p_subscription_keys, p_failures, p_seconds, p_reasons)
        as u (topic_key, subscription_key, failures, seconds, reason)
    where
        e.topic_key = u.topic_key and e.subscription_key = u.subscription_key and e.holder = p_process
        and (u.failures > 0 or e.failures is not null);
end;
$$;

-- functions/record_process.sql
-- Says that a process of a server lives and takes up to p_connections. Returns whether it holds the background work, and when to say it
-- again: the holder and one other, who will notice first that the holder is gone, every second, all others in as many seconds as there are
-- processes, so that more of them do not ask more. A process counts as gone when it has missed three times. p_take: take the work over.
create or replace function fastpubsub.record_process(
    p_process bigint,
    p_connections integer,
    p_take boolean default false,
    p_now timestamptz default null,
    out holds boolean,
    out pause_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_holder text;
    v_others bigint;
    v_next bigint;
begin
    perform fastpubsub.begin_call(false);
    select j.holder into v_holder from fastpubsub.jobs as j where j.name = 'background';
    holds := v_holder is not distinct from p_process::text;
    if
        not holds
        and (p_take or not exists (select from fastpubsub.processes as p where p.process::text = v_holder and p.expected_at > v_now))
    then
        -- Of several at once the first takes it.
        update fastpubsub.jobs as j set holder = p_process::text
        where j.name = 'background' and j.holder is not distinct from v_holder;
        holds := found;
    end if;
    select count(*), min(p.process) filter (where p.process::text is distinct from v_holder) into v_others, v_next
    from fastpubsub.processes as p where p.process <> p_process and p.expected_at > v_now;
    pause_seconds := case when holds or p_process < coalesce(v_next, p_process + 1) then 1 else v_others + 1 end;
    insert into fastpubsub.processes as p (process, expected_at, connections)
    values (p_process, v_now + make_interval(secs => 3 * pause_seconds), p_connections)
    on conflict (process) do update set expected_at = excluded.expected_at, connections = excluded.connections;
end;
$$;

-- functions/record_push_attempts.sql
-- Writes what became of pushes, which ended p_seconds ago.
create or replace function fastpubsub.record_push_attempts(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_positions bigint [],
    p_created_at timestamptz [],
    p_seconds double precision [],
    p_attempts integer [],
    p_outcomes text [],
    p_statuses integer [],
    p_milliseconds integer [],
    p_said text [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.begin_call(false);
    insert into fastpubsub.push_attempts (
        topic_key, subscription_key, position, created_at, pushed_at, attempt, outcome, status, milliseconds, said
    )
    select
        u.topic_key, u.subscription_key, u.position, u.created_at, v_now - make_interval(secs => u.seconds),
        u.attempt, u.outcome, u.status, u.milliseconds, u.said
    from unnest(
        p_topic_keys, p_subscription_keys, p_positions, p_created_at, p_seconds, p_attempts, p_outcomes, p_statuses, p_milliseconds, p_said
    ) with ordinality as u (
        topic_key, subscription_key, position, created_at, seconds, attempt, outcome, status, milliseconds, said, ordinal
    )
    order by u.ordinal;
end;
$$;

-- functions/record_uses.sql
-- Says that somebody pulled these subscriptions, or tried to. Only those that expire without it are noted, twice a minute at most.
create or replace function fastpubsub.record_uses(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    if not exists (select from fastpubsub.subscription_uses) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    -- One after the other, so that they do not wait for each other's rows.
    perform fastpubsub.lock_job('expire_subscriptions', true);
    update fastpubsub.subscription_uses as u set used_at = v_now
    from unnest(p_topic_keys, p_subscription_keys) as k (topic_key, subscription_key)
    where
        u.topic_key = k.topic_key and u.subscription_key = k.subscription_key and u.used_at < v_now - interval '30 seconds';
end;
$$;

-- functions/refuse_claim.sql
-- Says to a consumer that pulls, or to a dispatcher, that the messages are for the other.
create or replace function fastpubsub.refuse_claim(p_is_pushed boolean) returns void
language plpgsql volatile
as $$
begin
    raise exception using
        errcode = 'FP409',
        message = case
            when p_is_pushed
                then 'the messages of this subscription are pushed to its endpoint; change it with "push": null before you pull them'
            else 'the messages of this subscription are not pushed'
        end;
end;
$$;

-- functions/reject.sql
-- For applications: makes the messages of deliveries dead letters, with a reason of up to 1,024 characters, in the caller's own
-- transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.reject(subscription text, ack_ids text [], reason text default 'rejected') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if reject.reason is null or length(reject.reason) not between 1 and 1024 then
        raise exception using errcode = 'FP422', message = 'the reason of a reject has 1 to 1,024 characters';
    end if;
    perform fastpubsub.add_settlement(reject.subscription, 'reject', reject.ack_ids, null, reject.reason);
end;
$$;

revoke execute on function fastpubsub.reject(text, text [], text) from public;

-- functions/reject_messages_2.sql
-- Makes messages dead letters at once, whatever attempts are left, each run of ids with its reason. The result for each id is 1 (settled),
-- 0 (gone) or 2 (stale; see take_leases). `freed` says whether the subscription is ordered: then a key may go on.
create or replace function fastpubsub.reject_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_reasons text [],
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out freed boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_settings fastpubsub.cursors;
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts, null,
            (
                select array_agg(coalesce(p_reasons[t.run], 'rejected') order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            'rejected', coalesce(p_now, clock_timestamp()), null, v_taken.turns, v_taken.consumer_ids
        );
    end if;
    outcomes := v_taken.outcomes;
    freed := v_settings.ordered;
end;
$$;

-- functions/relay_messages.sql
-- Moves rows of the outbox to the end of their topic, in the order of (transaction, ordinal), in one transaction, so each arrives once.
-- Rows that are gone were moved by another process. `moved` is null when another process is moving rows at this moment. Rows of a topic
-- that was deleted since are deleted and counted in `dropped`; those that are to come later are put aside, and not counted.
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
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if found then
        select t.id into relay_messages.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
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
    set due_at = greatest(v_now, v_floor.due_at) + make_interval(secs => h.ordinal / 1000000.0)
    from (
        select m.ctid, row_number() over (order by m.due_at, m.delayed_key) as ordinal
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

-- functions/release_endpoints.sql
-- Says that a dispatcher stops: others hold its endpoints from now on.
create or replace function fastpubsub.release_endpoints(p_process bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.dispatchers as d where d.process = p_process;
    update fastpubsub.endpoints as e set holder = null where e.holder = p_process;
end;
$$;

-- functions/release_expired_leases.sql
-- Ends leases of one subscription that are past their deadline, until they hold p_limit messages: the messages wait for a retry, or die
-- after the last attempt. Leases that another call settles or extends at this moment are left alone; only locked rows are deleted. So are,
-- for ten minutes, those that an open transaction of an application settles.
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
    -- So long a transaction of an application keeps a message beyond its deadline.
    c_kept constant interval := '10 minutes';
    v_now timestamptz;
    v_lease record;
    v_positions bigint [];
    v_lasts bigint [];
    v_attempts integer [];
    v_turns bigint [];
    v_consumer_ids text [];
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
        select l.position, l.last_position, l.attempts, l.turn, l.consumer_id from fastpubsub.leases as l
        where
            l.expires_at > coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity') and l.expires_at <= v_now
            and l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and (l.expires_at <= v_now - c_kept or not fastpubsub.is_being_settled(l.token))
        order by l.expires_at
        limit p_limit
        for update skip locked
    loop
        delete from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
        v_positions := v_positions || v_lease.position;
        v_lasts := v_lasts || v_lease.last_position;
        v_attempts := v_attempts || v_lease.attempts;
        v_turns := v_turns || v_lease.turn;
        v_consumer_ids := v_consumer_ids || v_lease.consumer_id;
        released := release_expired_leases.released + (v_lease.last_position - v_lease.position + 1);
        exit when release_expired_leases.released >= p_limit;
    end loop;
    if v_positions is null then
        return;
    end if;
    died := fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_positions, v_lasts, v_attempts, null, null, 'lease expired', v_now, null, v_turns, v_consumer_ids
    );
end;
$$;

-- functions/reprocess_dead_letters.sql
-- Moves dead letters back: their copy goes to `revived` and is due at once, and attempts start again at 1. Where a seek made the message
-- come again anyway (it is ahead of the cursor, leased or waiting), only the dead letter is deleted, and counts as purged; a message ahead
-- that the filter would skip stays dead. One that holds its key goes back to its place, before what was put aside.
-- Returns the positions that are no longer dead.
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
        -- Those that held their keys are where they belong, and what was put aside may be long.
        select p from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p
        where v_settings.ordered and cardinality(v_positions) > cardinality(v_held) and p = any(v_positions)
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
drop function fastpubsub.requeue_messages;
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
    v_causes text [];
    v_turns bigint [];
    v_dead_turns bigint [];
    v_consumer_ids text [];
begin
    select
        array_agg(p), array_agg(r.attempts), array_agg(r.delay_seconds), array_agg(r.reason), array_agg(': ' || r.cause),
        array_agg(r.turn), array_agg(r.consumer_id)
    into v_positions, v_attempts, v_delay_seconds, v_reasons, v_causes, v_turns, v_consumer_ids
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons, p_causes, p_turns, p_consumer_ids)
        as r (position, last_position, attempts, delay_seconds, reason, cause, turn, consumer_id)
    cross join lateral generate_series(r.position, r.last_position) as p;
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;

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
    if 0 = any(v_turns) then
        v_turns := fastpubsub.name_turns(p_topic_key, p_subscription_key, v_positions, v_turns, v_cursor.position);
    end if;
    with waiting as materialized (
        select
            greatest(
                p_now + make_interval(secs => coalesce(
                    u.delay_seconds,
                    least(v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(u.attempts, 1) - 1, 40))
                )),
                v_cursor.retry_due_at + interval '1 microsecond'
            ) as due_at,
            u.position, u.attempts, u.turn, concat(p_cause, u.cause) as reason
        from unnest(v_positions, v_attempts, v_delay_seconds, v_reasons, v_causes, v_turns)
            as u (position, attempts, delay_seconds, reason, cause, turn)
        where u.attempts < v_settings.max_delivery_attempts and u.reason is null
    ),
    parked as (
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        select p_topic_key, p_subscription_key, w.turn, w.position, w.due_at, w.attempts, w.reason
        from waiting as w where w.turn is not null
    )
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select p_topic_key, p_subscription_key, w.due_at, w.position, w.attempts, w.reason
    from waiting as w where w.turn is null
    order by w.position;
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
-- Refuses a topic for the dead letters of a subscription of p_topic_id; null and '' are none. Nothing checks a dead letter against the
-- schema of the topic, so a topic that has one is refused; a schema that it gets later checks none.
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

-- functions/require_push.sql
-- Before a request is sent to the endpoint of a subscription by hand, with the message at p_position or with none of the topic. Raises
-- FP409 when the subscription is not pushed or its filter keeps the message out, and FP422 when the message is not kept. Nothing is leased
-- or settled.
create or replace function fastpubsub.require_push(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_path jsonpath;
    v_passes boolean;
begin
    perform fastpubsub.begin_call(true);
    select c.filter_path into v_path
    from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    perform from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP409', message = 'the subscription is not pushed; give it an endpoint first, with `push`';
    end if;
    perform from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p_position;
    if found or p_position is null then
        return;
    end if;
    select v_path is null or fastpubsub.passes_filter(m.payload, m.attributes, v_path, m.ordering_key) into v_passes
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if not found then
        raise exception using errcode = 'FP422', message = 'the message is no longer kept';
    elsif not v_passes then
        raise exception using errcode = 'FP409', message = 'the filter of the subscription keeps this message out';
    end if;
end;
$$;

-- functions/require_push_timeout.sql
-- A push must end before the lease of its message, or the message would be pushed a second time meanwhile.
create or replace function fastpubsub.require_push_timeout(p_topic_key bigint, p_subscription_key bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from fastpubsub.endpoints as e
    inner join fastpubsub.cursors as c on e.topic_key = c.topic_key and e.subscription_key = c.subscription_key
    where
        e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
        and (e.settings ->> 'timeout_seconds')::numeric >= c.ack_deadline_seconds;
    if found then
        raise exception using errcode = 'FP422', message = 'timeout_seconds of push must be below ack_deadline_seconds';
    end if;
end;
$$;

-- functions/require_room.sql
-- For a publish that holds the head: raises FP429 when a subscription that rejects has no room at all, and FP430 when
-- it has some, or when the call has requests that store nothing (p_is_mixed), so that a part of the call may be done.
-- FP422: more than it can ever take.
create or replace function fastpubsub.require_room(
    p_topic_key bigint,
    p_last bigint,
    p_count integer,
    p_is_mixed boolean default false
) returns void
language plpgsql volatile as $$
declare
    v_fullest record;
    v_id text;
begin
    v_fullest := fastpubsub.fullest_subscription(p_topic_key, p_last);
    if p_count = 0 or v_fullest.subscription_key is null or v_fullest.room >= p_count then
        return;
    end if;
    select s.id into v_id from fastpubsub.subscriptions as s where s.subscription_key = v_fullest.subscription_key;
    if v_fullest.room > 0 and p_count > v_fullest.max_backlog then
        raise exception using
            errcode = 'FP422',
            message = format(
                'subscription "%s" can have %s messages before it (max_backlog), and %s were published at once: publish fewer',
                v_id, v_fullest.max_backlog, p_count
            );
    end if;
    raise exception using
        errcode = case when v_fullest.room > 0 or p_is_mixed then 'FP430' else 'FP429' end,
        message = format(
            'subscription "%s" is full: it has room for %s of its max_backlog of %s messages; '
            'try again when its consumers have come further',
            v_id, greatest(v_fullest.room, 0), v_fullest.max_backlog
        );
end;
$$;

-- functions/return_leases.sql
-- Gives back deliveries that no consumer has seen: they are due at once, and the attempt does not count. The ids come as in ack_messages_2.
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
            array_fill(0, array[cardinality(v_taken.positions)]), null, 'returned', coalesce(p_now, clock_timestamp()), null, v_taken.turns
        );
    end if;
end;
$$;

-- functions/room_in_flight.sql
-- How many more messages of a subscription may be leased at once, and the first position that is. No lease begins before `leased_from` of
-- the newest claim, so this does not walk over all that were settled since.
create or replace function fastpubsub.room_in_flight(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer,
    out room integer,
    out first_leased bigint
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_leased_from bigint;
begin
    select c.leased_from into v_leased_from from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select greatest(p_max_in_flight - coalesce(sum(l.last_position - l.position + 1), 0), 0), min(l.position)
    into room_in_flight.room, room_in_flight.first_leased
    from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position >= coalesce(v_leased_from, 0);
end;
$$;

-- functions/room_to_claim.sql
-- How many more messages of a subscription its limits let through now, null for any number; the first position that is leased, as
-- room_in_flight finds it; and in how many seconds it is worth asking again once they are taken: a fast rate is not asked for each message.
create or replace function fastpubsub.room_to_claim(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer,
    p_rate_limit double precision,
    p_now timestamptz,
    out room integer,
    out first_leased bigint,
    out seconds double precision
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_full_at timestamptz;
    v_bucket double precision;
    v_whole integer;
begin
    if p_max_in_flight is not null then
        select r.room, r.first_leased, 0.5 into room_to_claim.room, room_to_claim.first_leased, room_to_claim.seconds
        from fastpubsub.room_in_flight(p_topic_key, p_subscription_key, p_max_in_flight) as r;
    end if;
    if p_rate_limit is not null then
        select c.full_at into v_full_at from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1;
        v_bucket := greatest(fastpubsub.bucket_messages(p_rate_limit, v_full_at, p_now), 0);
        -- A message that lacks less than what the microseconds of a time are rounded by is there.
        v_whole := floor(v_bucket + 0.00001);
        if room_to_claim.room > v_whole then
            seconds := null;
        end if;
        if room_to_claim.room < v_whole then
            return;
        end if;
        room := v_whole;
        seconds := greatest(room_to_claim.seconds, (v_whole + 1 - v_bucket) / p_rate_limit, 0.05);
    end if;
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
    v_endpoint fastpubsub.endpoints;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select e.* into v_endpoint
    from fastpubsub.subscriptions as s
    inner join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    where s.id = p_id
    for no key update of e;
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
    update fastpubsub.endpoints as e set
        secret = p_secret,
        old_secret = case when p_old_seconds > 0 then e.secret end,
        old_secret_expires_at = rotate_push_secret.old_secret_expires_at,
        version = default
    where e.topic_key = v_endpoint.topic_key and e.subscription_key = v_endpoint.subscription_key;
end;
$$;

-- functions/run_transaction.sql
-- Settles deliveries and publishes messages, all of it or nothing: what settle_at_commit settles, and rows of the outbox. Each settlement
-- has the next p_counts of the ack ids; each message has its topic, and times if it is to come later or to
-- expire. FP404, FP410 and FP422 as in ack
-- and publish.
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
    p_expires_at timestamptz [] default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first integer := 1;
    v_topic record;
begin
    perform fastpubsub.begin_call(true);
    for i in 1..cardinality(p_subscriptions) loop
        perform fastpubsub.add_settlement(
            p_subscriptions[i], p_actions[i], p_ack_ids[v_first:v_first + p_counts[i] - 1], p_delay_seconds[i], p_reasons[i]
        );
        v_first := v_first + p_counts[i];
    end loop;
    for v_topic in
        select u.id, t.topic_key, h.schema_version
        from (select distinct n as id from unnest(p_topics) as n) as u
        left join fastpubsub.topics as t on u.id = t.id
        left join fastpubsub.heads as h on t.topic_key = h.topic_key
        order by u.id
    loop
        if v_topic.topic_key is null then
            raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', v_topic.id);
        elsif v_topic.schema_version <> 0 then
            raise exception using
                errcode = 'FP422',
                message = format('topic "%s" has a JSON Schema: a transaction cannot publish to it', v_topic.id);
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
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key
    )
    select
        m.topic_key, m.subscription_key, m.position, m.created_at, coalesce(p_now, clock_timestamp()), 0,
        'the subscription was sought elsewhere before the reprocessed message was settled', m.payload, m.attributes, m.ordering_key
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
-- Turns push on, changes it, or turns it off; the caller holds the cursor. p_push has the settings as users see them and, in base64, the
-- sealed headers and a sealed secret, which is for an endpoint that has none, or one for another kind of signature. Returns whether the
-- secret was taken.
create or replace function fastpubsub.set_push(p_topic_key bigint, p_subscription_key bigint, p_push json) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_headers bytea := decode(p_push ->> 'headers', 'base64');
begin
    update fastpubsub.cursors as c set is_pushed = case when p_push is not null then true end
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if p_push is null then
        delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        return false;
    end if;
    update fastpubsub.endpoints as e set
        settings = p_push -> 'settings', headers = v_headers, version = default
    where
        e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
        and coalesce(e.settings ->> 'signature', 'hmac') = coalesce(p_push -> 'settings' ->> 'signature', 'hmac');
    if found then
        return false;
    end if;
    delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
    insert into fastpubsub.endpoints (topic_key, subscription_key, settings, headers, secret)
    values (p_topic_key, p_subscription_key, p_push -> 'settings', v_headers, decode(p_push ->> 'secret', 'base64'));
    return true;
end;
$$;

-- functions/settle_and_claim_2.sql
-- Settles, then claims, in one transaction: nothing is claimed when something cannot be settled, and messages that are given back
-- without a delay may be claimed again at once. The runs of ids are those of p_counts[1] acks, p_counts[2] nacks, p_counts[3] returns,
-- p_counts[4] rejects and p_counts[5] extensions, one after the other; p_seconds has the delays and extensions, p_reasons the reasons,
-- by run. `outcomes` says of every id, in the order of the runs, what take_leases says; `died` counts what was nacked for the last time.
--
-- The rest is claim_messages_2; without p_limits nothing is claimed. The cursor is locked first, even for an ack of whole leases, because
-- whoever holds leases may not wait for the cursor.
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
    v_first integer := 1;
    v_end integer;
    v_acked record;
    v_nacked record;
    v_rejected record;
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
        v_acked := fastpubsub.ack_messages_2(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now
        );
        outcomes := v_acked.outcomes;
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
-- Settles what an application's transaction has noted; a deferred trigger calls it when that commits, so the locks of a settle last no
-- longer than the commit. It settles everything at once, cursors first and in order, whatever the order of the calls was. Raises FP410,
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
        if v_settlement.action = 'ack' then
            v_outcomes := (
                fastpubsub.ack_messages_2(
                    v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                    v_settlement.lengths
                )
            ).outcomes;
        elsif v_settlement.action = 'nack' then
            v_outcomes := (
                fastpubsub.nack_messages(
                    v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                    array_fill(v_settlement.delay_seconds, array[cardinality(v_settlement.positions)]), v_settlement.lengths,
                    null, array_fill(v_settlement.reason, array[cardinality(v_settlement.positions)])
                )
            ).outcomes;
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
    end loop;
end;
$$;

-- functions/step_redrive.sql
drop function fastpubsub.step_redrive;
-- Goes on with a redrive: looks at up to p_scan dead letters and moves as many as the rate allows since the last step, one second's worth
-- at most. With a filter it judges for p_milliseconds, and one at least. Returns how many it moved, whether it has to be called again, and
-- the seconds until the rate allows more.
create or replace function fastpubsub.step_redrive(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint,
    p_limit integer,
    p_scan integer,
    p_now timestamptz default null,
    p_milliseconds integer default 20,
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
    v_moved bigint [];
    v_path jsonpath;
    v_until timestamptz;
    v_letter record;
    v_looked integer := 0;
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
    v_path := fastpubsub.compile_filter(v_redrive.filter);
    v_until := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    running := false;
    for v_letter in
        select
            d.position, d.created_at, d.payload, d.attributes, d.ordering_key,
            (v_redrive.reason is null or d.reason = v_redrive.reason)
            and (v_redrive.died_after is null or d.died_at >= v_redrive.died_after)
            and d.died_at < v_redrive.died_before as matches
        from fastpubsub.dead_letters as d
        where
            d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position >= v_redrive.next_position
        order by d.position
    loop
        v_looked := v_looked + 1;
        v_last := v_letter.position;
        if
            v_letter.matches
            and (
                v_path is null
                or fastpubsub.is_found(v_letter.payload, v_letter.attributes, v_path, null, null, null, v_letter.ordering_key)
            )
        then
            v_positions := v_positions || v_letter.position;
            v_created_at := v_created_at || v_letter.created_at;
        end if;
        running := v_looked >= p_scan or coalesce(cardinality(v_positions), 0) >= v_allowed
        or (v_path is not null and clock_timestamp() >= v_until);
        exit when step_redrive.running;
    end loop;
    if v_positions is not null then
        if v_redrive.action = 'purge' then
            v_moved := fastpubsub.purge_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at, p_now);
        else
            v_moved := fastpubsub.reprocess_dead_letters(p_topic_key, p_subscription_key, v_positions, v_created_at, p_now);
        end if;
        moved := cardinality(v_moved);
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
-- For a caller that has appended messages to a topic: stores their ordering keys, for ordered subscriptions.
create or replace function fastpubsub.store_keys(p_topic_key bigint, p_first_position bigint, p_ordering_keys text []) returns void
language plpgsql volatile
as $$
begin
    insert into fastpubsub.message_keys (topic_key, key_hash, position)
    select p_topic_key, hashtextextended(u.ordering_key, 0), p_first_position + u.ordinal - 1
    from unnest(p_ordering_keys) with ordinality as u (ordering_key, ordinal)
    where u.ordering_key is not null;
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
    v_ordered boolean;
    v_last bigint;
    v_first bigint;
    v_from bigint;
    v_oldest bigint;
    v_leased bigint;
    v_waiting bigint;
    v_log record;
begin
    select c.filter_path, c.paused_at is not null, c.ordered into v_path, subscription_metrics_2.paused, v_ordered from fastpubsub.cursors as c
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
    if v_ordered then
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

-- functions/take_due_retries.sql
drop function fastpubsub.take_due_retries;
-- Takes up to p_limit retries that are due at p_now, with their messages, in the order of (due_at, position) after the floor, up to
-- p_max_bytes together (at least one). `due_at` is that of the last one; with its position, it is the next floor.
-- `expires_at` is null when no message has one; a reprocessed dead letter has none.
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
    out size bigint,
    out ordering_keys text [],
    out expires_at timestamptz []
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
        array_agg(t.attributes), array_agg(t.revived), sum(t.size),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at) end
    into
        v_due_at, take_due_retries.positions, take_due_retries.attempts, take_due_retries.created_at, take_due_retries.payloads,
        take_due_retries.attributes, take_due_retries.revived, take_due_retries.size,
        take_due_retries.ordering_keys, take_due_retries.expires_at
    from (
        select
            w.*, sum(w.size) over (order by w.due_at, w.position) as running,
            row_number() over (order by w.due_at, w.position) as ordinal
        from (
            select
                r.due_at, r.position, r.attempts, v.position is not null as revived,
                coalesce(m.created_at, v.created_at) as created_at, coalesce(m.payload, v.payload) as payload,
                coalesce(m.attributes, v.attributes) as attributes, coalesce(m.ordering_key, v.ordering_key) as ordering_key,
                case when v.position is null then m.expires_at end as expires_at,
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
                select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = r.position
                limit 1
            ) as m on true
            left join lateral (
                select v.position, v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
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
    out outcomes smallint [],
    out turns bigint []
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

-- functions/take_turns.sql
-- For a claim of an ordered subscription: takes due retries in their order after the floor, up to 4, and with each what its key has after
-- it, up to p_limit messages and p_max_bytes together (at least one). `due_at` and `retry_position` are the next floor. What has expired is
-- in `expired` instead, with the attempts that it had.
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
begin
    positions := '{}';
    attempts := '{}';
    turns := '{}';
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    expired_attempts := '{}';
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
    v_share := greatest(p_limit / cardinality(v_positions), 1);
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
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_turns.due_at, take_turns.retry_position);
    if v_passed is not null then
        perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_passed, p_now + interval '1 microsecond');
    end if;
end;
$$;

-- functions/transaction_lock.sql
-- The advisory lock that an application's transaction holds, shared, on the deliveries of a claim that it settles.
create or replace function fastpubsub.transaction_lock(p_token bigint) returns bigint
language sql immutable
as $$
select hashtextextended('fastpubsub settlement', p_token);
$$;

-- functions/trim_changes.sql
-- Deletes up to p_limit of the oldest changes that are older than p_older_than_seconds. Returns how many it deleted.
create or replace function fastpubsub.trim_changes(p_older_than_seconds bigint, p_limit integer) returns bigint
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
    delete from fastpubsub.changes as c
    using (
        select o.ctid from fastpubsub.changes as o
        order by o.change_key
        limit p_limit
        for update skip locked
    ) as o
    where c.ctid = o.ctid and c.changed_at < clock_timestamp() - make_interval(secs => p_older_than_seconds);
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;

-- functions/trim_claims.sql
-- Deletes up to p_limit rows of `claims` per subscription that are no longer the newest, and idempotency keys past their window. So long it
-- is also known where delayed messages came in the log.
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
set enable_sort = off
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
        select o.ctid from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and o.created_at < v_window
        order by o.created_at
        limit p_limit
        for update skip locked
    ) as o
    where k.topic_key = p_topic_key and k.ctid = o.ctid;
    get diagnostics v_rows = row_count;
    v_trimmed := v_trimmed + v_rows;
    -- The newest is the floor.
    delete from fastpubsub.fired_messages as f
    using (
        select o.ctid from fastpubsub.fired_messages as o
        where
            o.topic_key = p_topic_key and o.due_at < v_window and o.created_at < v_window
            and (o.due_at, o.delayed_key) < (
                select n.due_at, n.delayed_key from fastpubsub.fired_messages as n
                where n.topic_key = p_topic_key
                order by n.due_at desc, n.delayed_key desc
                limit 1
            )
        order by o.due_at, o.delayed_key
        limit p_limit
    ) as o
    where f.topic_key = p_topic_key and f.ctid = o.ctid;
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
    delete from fastpubsub.processes as p
    where p.expected_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
end;
$$;

-- functions/trim_dispatchers.sql
-- Forgets the dispatchers that are gone.
create or replace function fastpubsub.trim_dispatchers(
    p_old_seconds double precision default 60,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.dispatchers as d
    where d.seen_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
end;
$$;

-- functions/trim_history.sql
-- Makes one minute of the oldest intervals of 5 seconds that are older than an hour, and deletes the minutes that are older than a day.
-- Returns whether there may be more to do.
create or replace function fastpubsub.trim_history(p_limit integer default 5000, p_now timestamptz default null) returns boolean
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
    -- With sorting off, only the index by time has this order.
    select h.at / 60 * 60 into v_minute
    from fastpubsub.history as h
    where h.interval_seconds = 5 and h.at < v_now / 60 * 60 - 3600
    order by h.at
    limit 1;
    with old as (
        delete from fastpubsub.history as h
        where h.ctid = any(array(
            select o.ctid from fastpubsub.history as o
            where o.interval_seconds = 5 and o.at >= v_minute and o.at < v_minute + 60
            order by o.at
        ))
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

-- functions/trim_push_attempts.sql
-- Deletes up to p_limit pushes that are older than p_old_seconds, and returns how many.
create or replace function fastpubsub.trim_push_attempts(
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
    delete from fastpubsub.push_attempts as a
    using (
        select o.ctid from fastpubsub.push_attempts as o
        where o.pushed_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds)
        order by o.pushed_at
        limit p_limit
    ) as o
    where a.ctid = o.ctid;
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;

-- functions/unsettled_position.sql
-- Returns the position that the oldest message follows which is ahead, leased or waiting, and still in the log. It is stable, so all of it
-- is one snapshot, in which no message is on its way from one table to another.
create or replace function fastpubsub.unsettled_position(p_topic_key bigint, p_subscription_key bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_first bigint := fastpubsub.first_position(p_topic_key, fastpubsub.last_position(p_topic_key));
    v_cursor fastpubsub.claims;
    v_leased bigint;
    v_waiting bigint;
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select min(greatest(l.position, v_first)) into v_leased from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.last_position >= v_first;
    select min(r.position) into v_waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position >= v_first;
    return least(v_cursor.position, v_leased - 1, v_waiting - 1);
end;
$$;

-- functions/update_schedule.sql
-- Gives a schedule other settings, if nobody has changed it since p_revision. Without a p_next_at it fires when it would have; one that is
-- paused stays so.
create or replace function fastpubsub.update_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_payload json,
    p_attributes jsonb,
    p_ordering_key text,
    p_cron text,
    p_time_zone text,
    p_interval_seconds integer,
    p_catch_up text,
    p_next_at timestamptz,
    p_schema_version bigint default 0
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    perform fastpubsub.lock_schedule(p_topic_key, p_id, p_revision);
    update fastpubsub.schedules as s set
        revision = s.revision + 1,
        payload = p_payload,
        attributes = p_attributes,
        ordering_key = p_ordering_key,
        cron = p_cron,
        time_zone = p_time_zone,
        interval_seconds = p_interval_seconds,
        catch_up = p_catch_up,
        next_at = case when s.next_at is not null then coalesce(p_next_at, s.next_at) end,
        problem = null
    where s.topic_key = p_topic_key and s.id = p_id;
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
    if p_on_dead_letter = 'hold' and not v_cursor.ordered then
        raise exception using
            errcode = 'FP422',
            message = 'on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true';
    end if;
    perform fastpubsub.check_on_full(v_cursor.ordered, p_on_full);
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
declare
    v_topic_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    update fastpubsub.heads as h set
        retention_seconds = case when p_change_retention then p_retention_seconds else h.retention_seconds end,
        schema = case when p_change_schema then p_schema else h.schema end,
        schema_version = case when p_change_schema then fastpubsub.schema_version(p_schema) else h.schema_version end
    where h.topic_key = v_topic_key;
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
    elsif v_operator = 'cidr' and fastpubsub.network_pattern(p_value ->> 'cidr') is not null then
        return format('@ like_regex %s', to_json(fastpubsub.network_pattern(p_value ->> 'cidr')));
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
