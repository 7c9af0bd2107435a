-- What servers of the last release call. They take the columns of a result by their place, so a function that has other columns by now
-- has a new name, and this one the old name and columns.

create or replace function fastpubsub.list_subscriptions_3(
    p_offset bigint, p_limit integer, p_ids text [] default null, p_topic_id text default null, p_part text default null,
    p_after text default null, p_has_dead_letters boolean default false, p_by_topic boolean default true,
    p_topic_keys bigint [] default null
)
returns table (
    id text, topic_id text, filter json, ack_deadline_seconds integer, max_delivery_attempts integer,
    backoff_min_seconds integer, backoff_max_seconds integer, created_at timestamptz, paused_at timestamptz,
    push json, ordered boolean, max_in_flight integer, rate_limit double precision, dead_letter_topic text,
    expire_after_seconds integer, expires_at timestamptz, on_expired text, on_dead_letter text, max_backlog integer,
    on_full text, fair_by text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        s.id, s.topic_id, s.filter, s.ack_deadline_seconds, s.max_delivery_attempts, s.backoff_min_seconds,
        s.backoff_max_seconds, s.created_at, s.paused_at, s.push, s.ordered, s.max_in_flight, s.rate_limit,
        s.dead_letter_topic, s.expire_after_seconds, s.expires_at, s.on_expired, s.on_dead_letter, s.max_backlog,
        s.on_full, s.fair_by
    from fastpubsub.list_subscriptions_4(
        p_offset => p_offset, p_limit => p_limit, p_ids => p_ids, p_topic_id => p_topic_id, p_part => p_part, p_after => p_after,
        p_has_dead_letters => p_has_dead_letters, p_by_topic => p_by_topic, p_topic_keys => p_topic_keys
    ) as s;
$$;
