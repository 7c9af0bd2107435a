-- Notes what the application's transaction settles when it commits (see settle_at_commit), if all of it is held now. Ack ids are the
-- rights: only who has pulled a delivery knows its token, so bare message ids are refused. FP422: a nack, a reject, or an ack of an
-- ordered subscription, at another isolation level than read committed.
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
    v_level text := current_setting('transaction_isolation');
    v_ordered boolean := false;
begin
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key
    from fastpubsub.subscriptions as s where s.id = p_subscription;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('subscription "%s" does not exist', left(p_subscription, 128)),
            hint = 'Create it first, or correct its name.';
    elsif v_level <> 'read committed' then
        select c.ordered into v_ordered from fastpubsub.cursors as c
        where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key;
    end if;
    -- Where a nack puts its message, and what goes on of a key, depends on the newest claim: else it would wait for ever.
    if v_level <> 'read committed' and (p_action <> 'ack' or v_ordered) then
        raise exception using
            errcode = 'FP422',
            message = format(
                '%s needs the isolation level read committed, not %s',
                case when p_action = 'ack' then 'an ack of an ordered subscription' else 'a ' || p_action end, v_level
            ),
            detail = 'What others have committed since decides what comes after the delivery, and an older snapshot does not show it.',
            hint = 'Use read committed for this transaction, or roll back and settle over HTTP after the work has committed.';
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
