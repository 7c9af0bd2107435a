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
    v_puts_aside boolean;
    v_last bigint;
    v_first bigint;
    v_from bigint;
    v_oldest bigint;
    v_leased bigint;
    v_waiting bigint;
    v_log record;
begin
    select c.filter_path, c.paused_at is not null, c.ordered or c.fair_by is not null
    into v_path, subscription_metrics_2.paused, v_puts_aside
    from fastpubsub.cursors as c
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
    if v_puts_aside then
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
