-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds and p_max_backlog of 0 are no limit, p_dead_letter_topic of '' no topic,
-- p_fair_by of '' nothing, and p_backoff_jitter of 0 none, as null is.
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
    p_max_in_flight integer default null,
    p_rate_limit double precision default null,
    p_dead_letter_topic text default null,
    p_expire_after_seconds integer default null,
    p_on_expired text default null,
    p_on_dead_letter text default null,
    p_max_backlog integer default null,
    p_on_full text default null,
    p_fair_by text default null,
    p_backoff_jitter double precision default null,
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
    v_filter json := case when v_path is not null then p_filter end;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(p_ordered, p_on_dead_letter);
    perform fastpubsub.check_on_full(p_ordered, p_on_full, nullif(p_fair_by, ''));
    select n.* into topic_key, subscription_key, created_at
    from fastpubsub.name_subscription(p_id, p_topic_id, v_filter, p_now) as n;
    perform fastpubsub.require_dead_letter_topic(p_topic_id, p_dead_letter_topic);
    -- Waits for publishers, so that "latest" comes after every confirmed message.
    perform from fastpubsub.heads as h where h.topic_key = create_subscription.topic_key for no key update;
    perform fastpubsub.limit_backlog(create_subscription.topic_key, p_max_backlog);
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
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ordered, max_in_flight, rate_limit, dead_letter_topic,
        expire_after_seconds,
        on_expired, on_dead_letter, max_backlog, on_full, fair_by, backoff_jitter
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered,
        nullif(p_max_in_flight, 0), nullif(p_rate_limit, 0), nullif(p_dead_letter_topic, ''), nullif(p_expire_after_seconds, 0),
        coalesce(p_on_expired, 'drop'), coalesce(p_on_dead_letter, 'continue'), nullif(p_max_backlog, 0), coalesce(p_on_full, 'reject'),
        nullif(p_fair_by, ''), nullif(p_backoff_jitter, 0)
    );
    perform fastpubsub.begin_subscription(
        create_subscription.topic_key, create_subscription.subscription_key, v_position, v_filter, p_push, p_now
    );
end;
$$;
