-- Returns the metrics of up to p_limit subscriptions for one scrape, and what each keeps of its topic beyond the retention. The caller
-- passes back, in arrays, the `judged_…` values of the call before, so that no message is judged twice. All searches together take at most
-- p_milliseconds, each at most half of the time left. p_topic_keys, when not null, holds the only topics whose nodes
-- answer.
create or replace function fastpubsub.list_subscription_metrics_2(
    p_limit integer,
    p_retention_seconds bigint,
    p_subscription_keys bigint [] default '{}',
    p_judged_filters bigint [] default '{}',
    p_judged_from bigint [] default '{}',
    p_judged_to bigint [] default '{}',
    p_milliseconds integer default 200,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
) returns table (
    subscription_key bigint,
    subscription_id text,
    topic_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    oldest_created_at timestamptz,
    oldest_leased_created_at timestamptz,
    oldest_waiting_created_at timestamptz,
    unjudged bigint,
    judged_filter bigint,
    judged_from bigint,
    judged_to bigint,
    kept_state text,
    kept_bytes bigint,
    paused boolean,
    held_keys bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_subscription record;
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
begin
    for v_subscription in
        select s.id, t.id as topic_id, s.topic_key, s.subscription_key, array_position(p_subscription_keys, s.subscription_key) as place
        from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        where (p_topic_keys is null or s.topic_key = any(p_topic_keys))
        order by s.subscription_key
        limit p_limit
    loop
        return query
        select
            v_subscription.subscription_key, v_subscription.id, v_subscription.topic_id, m.ahead, m.waiting, m.leased, m.dead, m.acked,
            m.oldest_created_at, m.oldest_leased_created_at, m.oldest_waiting_created_at, m.unjudged, m.judged_filter, m.judged_from,
            m.judged_to, k.state, k.bytes, m.paused, m.held_keys
        from
            fastpubsub.subscription_metrics_2(
                v_subscription.topic_key, v_subscription.subscription_key, 1000,
                (500 * extract(epoch from v_until - clock_timestamp()))::integer,
                p_judged_filters[v_subscription.place], p_judged_from[v_subscription.place], p_judged_to[v_subscription.place]
            ) as m
        cross join lateral fastpubsub.kept_log(
            v_subscription.topic_key, m.cursor_position + 1, m.leased_position, m.waiting_position, p_retention_seconds, p_now
        ) as k;
    end loop;
end;
$$;
