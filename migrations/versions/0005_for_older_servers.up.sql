-- What the servers of revision 0002 call, with the columns that they know: they take the columns of a row by their place, and PostgreSQL
-- refuses a prepared statement whose columns have changed. Servers of this revision call the function with a number in its name. The next
-- release drops these.

create or replace function fastpubsub.ack_messages(
    p_topic_key bigint, p_subscription_key bigint, p_positions bigint [], p_tokens bigint [],
    p_created_at timestamptz [], p_lengths integer [] default null
) returns smallint []
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select c.outcomes from fastpubsub.ack_messages_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_positions => p_positions,
        p_tokens => p_tokens, p_created_at => p_created_at, p_lengths => p_lengths
    ) as c;
$$;

create or replace function fastpubsub.browse_messages(
    p_topic_key bigint, p_subscription_key bigint, p_state text, p_position bigint, p_time timestamptz,
    p_backwards boolean, p_limit integer, p_max_bytes bigint, p_with_content boolean, p_search_in text default null,
    p_name text default null, p_values text [] default null, p_rows integer default 10000,
    p_milliseconds integer default 250
) returns table (
    message_position bigint, created_at timestamptz, attempts integer, at timestamptz, note text, since timestamptz,
    payload json, attributes jsonb, looked_at integer, other_side bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.message_position, c.created_at, c.attempts, c.at, c.note, c.since, c.payload, c.attributes, c.looked_at,
        c.other_side
    from fastpubsub.browse_messages_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_state => p_state,
        p_position => p_position, p_time => p_time, p_backwards => p_backwards, p_limit => p_limit,
        p_max_bytes => p_max_bytes, p_with_content => p_with_content, p_search_in => p_search_in, p_name => p_name,
        p_values => p_values, p_rows => p_rows, p_milliseconds => p_milliseconds
    ) as c;
$$;

create or replace function fastpubsub.claim_messages(
    p_topic_key bigint, p_subscription_key bigint, p_limits integer [], p_consumer_ids text [], p_max_bytes bigint,
    p_scan_rows bigint default 50000, p_scan_milliseconds integer default 20, p_now timestamptz default null,
    out token bigint, out expires_at timestamptz, out scanned bigint, out last bigint, out positions bigint [],
    out attempts integer [], out created_at timestamptz [], out payloads json [], out attributes jsonb [],
    out unreadable bigint [], out unreadable_created_at timestamptz [], out lease_seconds integer,
    out filtered bigint, out paused boolean
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.token, c.expires_at, c.scanned, c.last, c.positions, c.attempts, c.created_at, c.payloads, c.attributes,
        c.unreadable, c.unreadable_created_at, c.lease_seconds, c.filtered, c.paused
    from fastpubsub.claim_messages_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_limits => p_limits,
        p_consumer_ids => p_consumer_ids, p_max_bytes => p_max_bytes, p_scan_rows => p_scan_rows,
        p_scan_milliseconds => p_scan_milliseconds, p_now => p_now
    ) as c;
$$;

create function fastpubsub.create_redrive(
    p_topic_key bigint, p_subscription_key bigint, p_action text, p_reason text, p_died_after timestamptz,
    p_died_before timestamptz, p_per_second integer, p_max_running integer, p_keep integer,
    p_now timestamptz default null
) returns table (
    topic_key bigint, subscription_key bigint, redrive_key bigint, action text, reason text, died_after timestamptz,
    died_before timestamptz, per_second integer, matched bigint, done bigint, state text, next_position bigint,
    stepped_at timestamptz, created_at timestamptz, ended_at timestamptz
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.topic_key, c.subscription_key, c.redrive_key, c.action, c.reason, c.died_after, c.died_before,
        c.per_second, c.matched, c.done, c.state, c.next_position, c.stepped_at, c.created_at, c.ended_at
    from fastpubsub.create_redrive_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_action => p_action,
        p_reason => p_reason, p_died_after => p_died_after, p_died_before => p_died_before,
        p_per_second => p_per_second, p_max_running => p_max_running, p_keep => p_keep, p_now => p_now
    ) as c;
$$;

create or replace function fastpubsub.explain_in_subscriptions(
    p_topic_key bigint, p_position bigint, p_ids text [], p_offset bigint, p_limit integer
) returns table (
    subscription_id text, state text, attempts integer, consumer_id text, until timestamptz, died_at timestamptz,
    reason text, before bigint, before_is_estimated boolean, filter json, field text, expected json, actual json,
    actual_bytes integer, similar_field text, is_readable boolean, sought_at timestamptz, paused_at timestamptz,
    leased_at timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.subscription_id, c.state, c.attempts, c.consumer_id, c.until, c.died_at, c.reason, c.before,
        c.before_is_estimated, c.filter, c.field, c.expected, c.actual, c.actual_bytes, c.similar_field,
        c.is_readable, c.sought_at, c.paused_at, c.leased_at
    from fastpubsub.explain_in_subscriptions_2(
        p_topic_key => p_topic_key, p_position => p_position, p_ids => p_ids, p_offset => p_offset,
        p_limit => p_limit
    ) as c;
$$;

create or replace function fastpubsub.explain_message(
    p_topic_key bigint, p_subscription_key bigint, p_position bigint, p_look integer default 10000, out state text,
    out attempts integer, out consumer_id text, out until timestamptz, out died_at timestamptz, out reason text,
    out before bigint, out before_is_estimated boolean, out filter json, out field text, out expected json,
    out actual json, out actual_bytes integer, out similar_field text, out is_readable boolean,
    out sought_at timestamptz, out paused_at timestamptz, out leased_at timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.state, c.attempts, c.consumer_id, c.until, c.died_at, c.reason, c.before, c.before_is_estimated, c.filter,
        c.field, c.expected, c.actual, c.actual_bytes, c.similar_field, c.is_readable, c.sought_at, c.paused_at,
        c.leased_at
    from fastpubsub.explain_message_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_position => p_position,
        p_look => p_look
    ) as c;
$$;

create or replace function fastpubsub.find_message(
    p_topic_key bigint, p_position bigint, out topic_id text, out last bigint, out created_at timestamptz,
    out payload json, out attributes jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.topic_id, c.last, c.created_at, c.payload, c.attributes
    from fastpubsub.find_message_2(
        p_topic_key => p_topic_key, p_position => p_position
    ) as c;
$$;

create or replace function fastpubsub.list_dead_letters(
    p_topic_key bigint, p_subscription_key bigint, p_offset bigint, p_limit integer, p_max_bytes bigint,
    p_after bigint default null, p_reason text default null, p_died_after timestamptz default null,
    p_died_before timestamptz default null, p_rows integer default 100000
) returns table (
    message_position bigint, created_at timestamptz, died_at timestamptz, attempts integer, reason text,
    payload json, attributes jsonb
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.message_position, c.created_at, c.died_at, c.attempts, c.reason, c.payload, c.attributes
    from fastpubsub.list_dead_letters_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_offset => p_offset,
        p_limit => p_limit, p_max_bytes => p_max_bytes, p_after => p_after, p_reason => p_reason,
        p_died_after => p_died_after, p_died_before => p_died_before, p_rows => p_rows
    ) as c;
$$;

create or replace function fastpubsub.list_loads(
    p_ids text [], p_retention_seconds bigint
) returns table (
    topic_id text, subscription_id text, is_filtered boolean, behind bigint, leased bigint, waiting bigint,
    dead bigint, next_created_at timestamptz, leased_created_at timestamptz, waiting_created_at timestamptz,
    died_at timestamptz, retention_seconds bigint, paused_at timestamptz, first_expires_at timestamptz
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.topic_id, c.subscription_id, c.is_filtered, c.behind, c.leased, c.waiting, c.dead, c.next_created_at,
        c.leased_created_at, c.waiting_created_at, c.died_at, c.retention_seconds, c.paused_at, c.first_expires_at
    from fastpubsub.list_loads_2(
        p_ids => p_ids, p_retention_seconds => p_retention_seconds
    ) as c;
$$;

create or replace function fastpubsub.list_ready_subscriptions(
    p_topic_keys bigint [], p_subscription_keys bigint [], p_now timestamptz default null
) returns table (
    place integer, ready boolean, due_seconds double precision, paused boolean
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.place, c.ready, c.due_seconds, c.paused
    from fastpubsub.list_ready_subscriptions_2(
        p_topic_keys => p_topic_keys, p_subscription_keys => p_subscription_keys, p_now => p_now
    ) as c;
$$;

create function fastpubsub.list_redrives(
    p_topic_key bigint, p_subscription_key bigint, p_redrive_key bigint default null
) returns table (
    topic_key bigint, subscription_key bigint, redrive_key bigint, action text, reason text, died_after timestamptz,
    died_before timestamptz, per_second integer, matched bigint, done bigint, state text, next_position bigint,
    stepped_at timestamptz, created_at timestamptz, ended_at timestamptz
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.topic_key, c.subscription_key, c.redrive_key, c.action, c.reason, c.died_after, c.died_before,
        c.per_second, c.matched, c.done, c.state, c.next_position, c.stepped_at, c.created_at, c.ended_at
    from fastpubsub.list_redrives_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_redrive_key => p_redrive_key
    ) as c;
$$;

create or replace function fastpubsub.list_subscription_figures(
    p_ids text [], p_look bigint default 200, p_now timestamptz default null
) returns table (
    subscription_id text, ahead bigint, waiting bigint, leased bigint, dead bigint, acked bigint, filtered bigint,
    estimated boolean, paused boolean, oldest_ahead_seconds double precision,
    oldest_leased_seconds double precision, oldest_waiting_seconds double precision,
    delivered_rate double precision, acked_rate double precision, nacked_rate double precision,
    rejected_rate double precision, expired_rate double precision, dead_lettered_rate double precision,
    filtered_rate double precision
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.subscription_id, c.ahead, c.waiting, c.leased, c.dead, c.acked, c.filtered, c.estimated, c.paused,
        c.oldest_ahead_seconds, c.oldest_leased_seconds, c.oldest_waiting_seconds, c.delivered_rate, c.acked_rate,
        c.nacked_rate, c.rejected_rate, c.expired_rate, c.dead_lettered_rate, c.filtered_rate
    from fastpubsub.list_subscription_figures_2(
        p_ids => p_ids, p_look => p_look, p_now => p_now
    ) as c;
$$;

create or replace function fastpubsub.list_subscription_metrics(
    p_limit integer, p_retention_seconds bigint, p_subscription_keys bigint [] default '{}',
    p_judged_filters bigint [] default '{}', p_judged_from bigint [] default '{}',
    p_judged_to bigint [] default '{}', p_milliseconds integer default 200, p_now timestamptz default null
) returns table (
    subscription_key bigint, subscription_id text, topic_id text, ahead bigint, waiting bigint, leased bigint,
    dead bigint, acked bigint, oldest_created_at timestamptz, oldest_leased_created_at timestamptz,
    oldest_waiting_created_at timestamptz, unjudged bigint, judged_filter bigint, judged_from bigint,
    judged_to bigint, kept_state text, kept_bytes bigint, paused boolean
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.subscription_key, c.subscription_id, c.topic_id, c.ahead, c.waiting, c.leased, c.dead, c.acked,
        c.oldest_created_at, c.oldest_leased_created_at, c.oldest_waiting_created_at, c.unjudged, c.judged_filter,
        c.judged_from, c.judged_to, c.kept_state, c.kept_bytes, c.paused
    from fastpubsub.list_subscription_metrics_2(
        p_limit => p_limit, p_retention_seconds => p_retention_seconds, p_subscription_keys => p_subscription_keys,
        p_judged_filters => p_judged_filters, p_judged_from => p_judged_from, p_judged_to => p_judged_to,
        p_milliseconds => p_milliseconds, p_now => p_now
    ) as c;
$$;

create or replace function fastpubsub.list_subscriptions(
    p_offset bigint, p_limit integer, p_ids text [] default null, p_topic_id text default null,
    p_part text default null, p_after text default null, p_has_dead_letters boolean default false
) returns table (
    id text, topic_id text, filter json, ack_deadline_seconds integer, max_delivery_attempts integer,
    backoff_min_seconds integer, backoff_max_seconds integer, created_at timestamptz, paused_at timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        c.id, c.topic_id, c.filter, c.ack_deadline_seconds, c.max_delivery_attempts, c.backoff_min_seconds,
        c.backoff_max_seconds, c.created_at, c.paused_at
    from fastpubsub.list_subscriptions_2(
        p_offset => p_offset, p_limit => p_limit, p_ids => p_ids, p_topic_id => p_topic_id, p_part => p_part,
        p_after => p_after, p_has_dead_letters => p_has_dead_letters
    ) as c;
$$;

create or replace function fastpubsub.read_messages(
    p_topic_key bigint, p_after bigint, p_limit integer, p_max_bytes bigint, out last bigint, out missed boolean,
    out positions bigint [], out created_at timestamptz [], out payloads json [], out attributes jsonb []
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.last, c.missed, c.positions, c.created_at, c.payloads, c.attributes
    from fastpubsub.read_messages_2(
        p_topic_key => p_topic_key, p_after => p_after, p_limit => p_limit, p_max_bytes => p_max_bytes
    ) as c;
$$;

create or replace function fastpubsub.reject_messages(
    p_topic_key bigint, p_subscription_key bigint, p_positions bigint [], p_tokens bigint [],
    p_created_at timestamptz [], p_reasons text [], p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select c.outcomes from fastpubsub.reject_messages_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_positions => p_positions,
        p_tokens => p_tokens, p_created_at => p_created_at, p_reasons => p_reasons, p_lengths => p_lengths,
        p_now => p_now
    ) as c;
$$;

create or replace function fastpubsub.settle_and_claim(
    p_topic_key bigint, p_subscription_key bigint, p_counts integer [], p_positions bigint [], p_tokens bigint [],
    p_created_at timestamptz [], p_seconds integer [], p_reasons text [], p_lengths integer [], p_limits integer [],
    p_consumer_ids text [], p_max_bytes bigint, p_scan_rows bigint default 50000,
    p_scan_milliseconds integer default 20, p_now timestamptz default null, out outcomes smallint [],
    out died integer, out token bigint, out expires_at timestamptz, out scanned bigint, out last bigint,
    out positions bigint [], out attempts integer [], out created_at timestamptz [], out payloads json [],
    out attributes jsonb [], out unreadable bigint [], out unreadable_created_at timestamptz [],
    out lease_seconds integer, out filtered bigint, out paused boolean
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.outcomes, c.died, c.token, c.expires_at, c.scanned, c.last, c.positions, c.attempts, c.created_at,
        c.payloads, c.attributes, c.unreadable, c.unreadable_created_at, c.lease_seconds, c.filtered, c.paused
    from fastpubsub.settle_and_claim_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_counts => p_counts,
        p_positions => p_positions, p_tokens => p_tokens, p_created_at => p_created_at, p_seconds => p_seconds,
        p_reasons => p_reasons, p_lengths => p_lengths, p_limits => p_limits, p_consumer_ids => p_consumer_ids,
        p_max_bytes => p_max_bytes, p_scan_rows => p_scan_rows, p_scan_milliseconds => p_scan_milliseconds,
        p_now => p_now
    ) as c;
$$;

create or replace function fastpubsub.subscription_metrics(
    p_topic_key bigint, p_subscription_key bigint, p_look bigint default 10000, p_milliseconds integer default 0,
    p_judged_filter bigint default null, p_judged_from bigint default null, p_judged_to bigint default null,
    out ahead bigint, out waiting bigint, out leased bigint, out dead bigint, out acked bigint,
    out estimated boolean, out oldest_created_at timestamptz, out oldest_leased_created_at timestamptz,
    out oldest_waiting_created_at timestamptz, out unjudged bigint, out judged_filter bigint,
    out judged_from bigint, out judged_to bigint, out cursor_position bigint, out leased_position bigint,
    out waiting_position bigint, out filtered bigint, out paused boolean
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select
        c.ahead, c.waiting, c.leased, c.dead, c.acked, c.estimated, c.oldest_created_at, c.oldest_leased_created_at,
        c.oldest_waiting_created_at, c.unjudged, c.judged_filter, c.judged_from, c.judged_to, c.cursor_position,
        c.leased_position, c.waiting_position, c.filtered, c.paused
    from fastpubsub.subscription_metrics_2(
        p_topic_key => p_topic_key, p_subscription_key => p_subscription_key, p_look => p_look,
        p_milliseconds => p_milliseconds, p_judged_filter => p_judged_filter, p_judged_from => p_judged_from,
        p_judged_to => p_judged_to
    ) as c;
$$;

create or replace function fastpubsub.update_subscription(
    p_id text, p_change_filter boolean default false, p_filter json default null,
    p_ack_deadline_seconds integer default null, p_max_delivery_attempts integer default null,
    p_backoff_min_seconds integer default null, p_backoff_max_seconds integer default null
) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select fastpubsub.update_subscription_2(
        p_id => p_id, p_change_filter => p_change_filter, p_filter => p_filter,
        p_ack_deadline_seconds => p_ack_deadline_seconds, p_max_delivery_attempts => p_max_delivery_attempts,
        p_backoff_min_seconds => p_backoff_min_seconds, p_backoff_max_seconds => p_backoff_max_seconds
    );
$$;
