-- What became of one message in one subscription, and why: `state` is ahead, leased, waiting, dead, settled, filtered, skipped, purged,
-- before_subscription, trimmed or unknown. Nothing is locked or written; stable, so that everything is seen at one moment. `expired_at`
-- is when the message expired, if it has, and `may_be_dropped` whether a settled one may be one that was too many. `before`: messages
-- that come first, at most p_look of them judged by the filter; `before_is_estimated` beyond. `failures`: failures_of. `held_by`: the
-- dead letter that holds the message's key, which may be itself. `reason` of one that was put aside: by what the subscription is shared.
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
    v_key_turn bigint;
    v_created_at timestamptz;
begin
    select c.position, c.retry_due_at, c.retry_position, s.filter, u.filter_path, u.paused_at,
        u.ordered, u.fair_by, u.max_in_flight, u.rate_limit, c.full_at, c.dropped
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
    if v_cursor.ordered and explain_message_2.state is null and p_position <= v_cursor.position then
        select k.turns[1] into v_key_turn from fastpubsub.key_turns(p_topic_key, p_subscription_key, array[p_position]) as k;
        select 'waiting', p.attempts, p.due_at, p.reason
        into explain_message_2.state, explain_message_2.attempts, explain_message_2.until, explain_message_2.reason
        from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = v_key_turn
            and p.position = p_position and p.reason <> 'put aside';
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
    is_put_aside := coalesce(v_key_turn < p_position, false)
    or (
        v_cursor.fair_by is not null and p_position <= v_cursor.position
        and p_position in (select p from fastpubsub.put_aside(p_topic_key, p_subscription_key) as p)
    );
    if explain_message_2.is_put_aside then
        state := 'ahead';
        reason := v_cursor.fair_by;
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
