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

-- functions/nack.sql
-- For applications: gives deliveries back for another attempt, after delay_seconds (0 to a week; null: the backoff), in the caller's own
-- transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.nack(subscription text, ack_ids text [], delay_seconds integer default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if nack.delay_seconds not between 0 and 604800 then
        raise exception using
            errcode = 'FP422', message = format('delay_seconds is 0 to 604800 (a week), not %s', nack.delay_seconds);
    end if;
    perform fastpubsub.add_settlement(nack.subscription, 'nack', nack.ack_ids, nack.delay_seconds, null);
end;
$$;

revoke execute on function fastpubsub.nack(text, text [], integer) from public;

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
    c_shape constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}[.][0-9a-f]{16}$';
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
            v_outcomes := fastpubsub.ack_messages(
                v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                v_settlement.lengths
            );
        elsif v_settlement.action = 'nack' then
            v_outcomes := (
                fastpubsub.nack_messages(
                    v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                    array_fill(v_settlement.delay_seconds, array[cardinality(v_settlement.positions)]), v_settlement.lengths
                )
            ).outcomes;
        else
            v_outcomes := fastpubsub.reject_messages(
                v_settlement.topic_key, v_settlement.subscription_key, v_settlement.positions, v_settlement.tokens, v_created_at,
                array_fill(v_settlement.reason, array[cardinality(v_settlement.positions)]), v_settlement.lengths
            );
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

-- functions/transaction_lock.sql
-- The advisory lock that an application's transaction holds, shared, on the deliveries of a claim that it settles.
create or replace function fastpubsub.transaction_lock(p_token bigint) returns bigint
language sql immutable
as $$
select hashtextextended('fastpubsub settlement', p_token);
$$;
