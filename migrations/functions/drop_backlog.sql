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
