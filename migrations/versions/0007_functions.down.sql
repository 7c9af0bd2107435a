-- functions/count_refused_messages.sql
drop function fastpubsub.count_refused_messages;

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

-- functions/list_refused_messages.sql
drop function fastpubsub.list_refused_messages;

-- functions/publish.sql
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

-- functions/publish_refused_messages.sql
drop function fastpubsub.publish_refused_messages;

-- functions/purge_refused_messages.sql
drop function fastpubsub.purge_refused_messages;

-- functions/read_outbox.sql
drop function fastpubsub.read_outbox;

-- functions/refuse_messages.sql
drop function fastpubsub.refuse_messages;

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

-- functions/relay_messages_2.sql
drop function fastpubsub.relay_messages_2;

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

-- functions/reseal_endpoints.sql
drop function fastpubsub.reseal_endpoints;

-- functions/run_transaction.sql
drop function fastpubsub.run_transaction;
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

-- functions/take_settled.sql
drop function fastpubsub.take_settled;

-- functions/trim_refused_messages.sql
drop function fastpubsub.trim_refused_messages;
