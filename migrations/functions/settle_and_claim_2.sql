-- Settles, then claims, in one transaction: nothing is claimed when something cannot be settled, and messages that are given back
-- without a delay may be claimed again at once. The runs of ids are those of p_counts[1] acks, p_counts[2] nacks, p_counts[3] returns,
-- p_counts[4] rejects and p_counts[5] extensions, one after the other; p_seconds has the delays and extensions, p_reasons the reasons,
-- by run. `outcomes` says of every id, in the order of the runs, what take_leases says; `died` counts what was nacked for the last time.
--
-- The rest is claim_messages_2; without p_limits nothing is claimed. The cursor is locked first, even for an ack of whole leases, because
-- whoever holds leases may not wait for the cursor. The usual case, acks of whole leases and a claim of what comes next in the log, is done
-- by end_whole_leases and claim_stretch; in an ordered subscription by end_acked and claim_in_order.
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
    v_settings fastpubsub.cursors;
    v_first integer := 1;
    v_end integer;
    v_at_once boolean;
    v_acked record;
    v_nacked record;
    v_rejected record;
    v_claimed record;
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
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
    -- What goes on of the keys of an ordered subscription is handed out without having waited in a table.
    v_at_once := v_end > 0 and v_end = cardinality(p_positions) and coalesce(cardinality(p_limits), 0) > 0 and v_settings.ordered
    and v_settings.paused_at is null and v_settings.is_pushed is not true and v_settings.max_in_flight is null
    and v_settings.rate_limit is null;
    if v_end = cardinality(p_positions) and not v_settings.ordered then
        v_acked := fastpubsub.end_whole_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_lengths);
        outcomes := v_acked.outcomes;
        freed := false;
        v_first := v_acked.runs + 1;
    end if;
    if v_end >= v_first then
        v_acked := fastpubsub.end_acked(
            p_topic_key, p_subscription_key, p_positions[v_first:v_end], p_tokens[v_first:v_end], p_created_at[v_first:v_end],
            p_lengths[v_first:v_end], p_now, v_settings.ordered, not v_at_once
        );
        outcomes := settle_and_claim_2.outcomes || v_acked.outcomes;
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

    if v_at_once then
        v_claimed := fastpubsub.claim_in_order(
            v_settings, p_limits, p_consumer_ids, p_max_bytes, p_scan_milliseconds, coalesce(p_now, clock_timestamp()), null, null,
            v_acked.turns, v_acked.positions, v_acked.last_positions
        );
        token := v_claimed.token;
        expires_at := v_claimed.expires_at;
        lease_seconds := v_settings.ack_deadline_seconds;
        scanned := v_claimed.scanned;
        last := v_claimed.last;
        positions := v_claimed.positions;
        attempts := v_claimed.attempts;
        created_at := v_claimed.created_at;
        payloads := v_claimed.payloads;
        attributes := v_claimed.attributes;
        unreadable := v_claimed.unreadable;
        unreadable_created_at := v_claimed.unreadable_created_at;
        filtered := v_claimed.filtered;
        paused := false;
        ordering_keys := v_claimed.ordering_keys;
        shares := v_claimed.shares;
        limited_seconds := case when v_claimed.is_cut then 0 end;
        freed := v_claimed.freed;
        ttl_expired := v_claimed.ttl_expired;
        dead_lettered := v_claimed.dead_lettered;
    elsif cardinality(p_limits) > 0 then
        if
            v_settings.paused_at is null and v_settings.is_pushed is not true and not v_settings.ordered and v_settings.fair_by is null
            and v_settings.filter_path is null and v_settings.max_in_flight is null and v_settings.rate_limit is null
        then
            v_now := coalesce(p_now, clock_timestamp());
            v_claimed := fastpubsub.claim_stretch(
                p_topic_key, p_subscription_key, p_limits, p_consumer_ids, p_max_bytes, v_now, v_settings.ack_deadline_seconds
            );
            if v_claimed.is_usual then
                token := v_claimed.token;
                expires_at := v_claimed.expires_at;
                lease_seconds := v_claimed.lease_seconds;
                scanned := v_claimed.scanned;
                last := v_claimed.last;
                positions := v_claimed.positions;
                attempts := v_claimed.attempts;
                created_at := v_claimed.created_at;
                payloads := v_claimed.payloads;
                attributes := v_claimed.attributes;
                ordering_keys := v_claimed.ordering_keys;
                filtered := 0;
                paused := false;
                ttl_expired := 0;
                return;
            end if;
        end if;
        v_durable := current_setting('synchronous_commit');
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
