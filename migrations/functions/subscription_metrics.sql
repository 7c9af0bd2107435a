-- ahead + waiting, leased, dead and acked add up to what was routed. For a filtered subscription at most p_look messages are judged;
-- beyond them `ahead` is the share that matched so far, and `estimated` says so.
create or replace function fastpubsub.subscription_metrics(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look bigint default 10000,
    out ahead bigint,
    out waiting bigint,
    out leased bigint,
    out dead bigint,
    out acked bigint,
    out estimated boolean,
    out oldest_created_at timestamptz
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
    v_log record;
begin
    select c.filter_path into v_path from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_last := fastpubsub.last_position(p_topic_key);
    ahead := greatest(v_last - v_cursor.position, 0);
    estimated := false;
    if v_path is not null and subscription_metrics.ahead > 0 then
        select s.positions, s.scanned into v_log
        from fastpubsub.scan_log(p_topic_key, v_cursor.position, v_last, v_path, p_look::integer, p_look, 100) as s;
        estimated := v_log.scanned < v_last;
        ahead := cardinality(v_log.positions);
        if subscription_metrics.estimated then
            ahead := subscription_metrics.ahead * (v_last - v_cursor.position) / greatest(v_log.scanned - v_cursor.position, 1);
        end if;
    end if;
    select count(*) into waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    select coalesce(sum(l.last_position - l.position + 1), 0) into leased from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into dead from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key;
    acked := v_cursor.routed - subscription_metrics.waiting - subscription_metrics.leased - subscription_metrics.dead
        - v_cursor.purged - v_cursor.dropped;
    -- The oldest message that waits for its first delivery.
    select m.created_at into oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_cursor.position + 1;
end;
$$;
