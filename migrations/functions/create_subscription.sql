-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
create or replace function fastpubsub.create_subscription(
    p_id text,
    p_topic_id text,
    p_filter json,
    p_ack_deadline_seconds integer,
    p_max_delivery_attempts integer,
    p_backoff_min_seconds integer,
    p_backoff_max_seconds integer,
    p_start_from text default 'latest',
    p_start_time timestamptz default null,
    p_now timestamptz default null,
    p_push json default null,
    p_ordered boolean default false,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    -- Waits for publishers, so that "latest" comes after every confirmed message, and for a deletion of the topic.
    select t.topic_key into create_subscription.topic_key from fastpubsub.topics as t where t.id = p_topic_id;
    perform from fastpubsub.heads as h where h.topic_key = create_subscription.topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_topic_id);
    end if;
    insert into fastpubsub.subscriptions as s (topic_key, id, filter, created_at)
    values (create_subscription.topic_key, p_id, case when v_path is not null then p_filter end, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning s.subscription_key, s.created_at into create_subscription.subscription_key, create_subscription.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('subscription "%s" already exists', p_id);
    end if;
    if p_start_from <> 'latest' then
        -- Trimming does not know the new cursor yet, and must not delete the messages just after it.
        perform fastpubsub.lock_job('trim_messages', true);
    end if;
    v_position := case p_start_from
        when 'earliest' then fastpubsub.position_before(create_subscription.topic_key, '-infinity')
        when 'time' then fastpubsub.position_before(create_subscription.topic_key, p_start_time)
        else fastpubsub.last_position(create_subscription.topic_key)
    end;
    insert into fastpubsub.cursors (
        topic_key, subscription_key, filter_path, ack_deadline_seconds,
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ordered
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered
    );
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped, filtered
    ) values (create_subscription.topic_key, create_subscription.subscription_key, 1, v_position, '-infinity', 0, 0, 0, 0, 0);
    perform fastpubsub.remember_filter(
        create_subscription.topic_key, create_subscription.subscription_key, v_position + 1, case when v_path is not null then p_filter end
    );
    if p_push is not null then
        perform fastpubsub.set_push(create_subscription.topic_key, create_subscription.subscription_key, p_push);
        perform fastpubsub.require_push_timeout(create_subscription.topic_key, create_subscription.subscription_key);
    end if;
end;
$$;
