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
