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
    if v_settings.ordered or v_settings.fair_by is not null then
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
    if v_settings.ordered or v_settings.fair_by is not null then
        purged := purged + v_aside.messages;
        is_estimated := is_estimated or v_aside.is_estimated;
    end if;
end;
$$;
