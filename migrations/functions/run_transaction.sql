-- Settles deliveries and publishes messages, all of it or nothing: what settle_at_commit settles, and rows of the
-- outbox. Each settlement has the next p_counts of the ack ids; each message has its topic, times if it is to come
-- later or to expire, and the version of the schema by which it was checked, 0 for none: FP428 when that is not the
-- current one. FP404, FP410 and FP422 as in ack and publish.
create or replace function fastpubsub.run_transaction(
    p_subscriptions text [],
    p_actions text [],
    p_counts integer [],
    p_ack_ids text [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_topics text [],
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_deliver_at timestamptz [] default null,
    p_delay_seconds_of_messages integer [] default null,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    p_schema_versions bigint [] default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first integer := 1;
    v_topic record;
begin
    perform fastpubsub.begin_call(true);
    if p_schema_versions is null then
        -- A server of the last release, which counts what it settles, and checks nothing.
        perform set_config('fastpubsub.counts_itself', 'on', true);
    end if;
    for i in 1..cardinality(p_subscriptions) loop
        perform fastpubsub.add_settlement(
            p_subscriptions[i], p_actions[i], p_ack_ids[v_first:v_first + p_counts[i] - 1], p_delay_seconds[i], p_reasons[i]
        );
        v_first := v_first + p_counts[i];
    end loop;
    for v_topic in
        select u.id, t.topic_key, h.schema_version, u.checked_by
        from (
            select n.id, min(n.schema_version) as checked_by from unnest(p_topics, p_schema_versions) as n (id, schema_version) group by n.id
        ) as u
        left join fastpubsub.topics as t on u.id = t.id
        left join fastpubsub.heads as h on t.topic_key = h.topic_key
        order by u.id
    loop
        if v_topic.topic_key is null then
            raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', v_topic.id);
        elsif v_topic.schema_version <> coalesce(v_topic.checked_by, 0) then
            raise exception using
                errcode = case when p_schema_versions is null then 'FP422' else 'FP428' end,
                message = format('the schema of topic "%s" has changed; try again', v_topic.id);
        end if;
    end loop;
    insert into fastpubsub.outbox (
        transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, ttl_seconds, expires_at
    )
    select
        pg_current_xact_id(), t.topic_key, u.payload, u.attributes, u.ordering_key,
        fastpubsub.due_time(p_deliver_at[u.ordinal], p_delay_seconds_of_messages[u.ordinal], clock_timestamp()),
        p_ttl_seconds[u.ordinal], p_expires_at[u.ordinal]
    from unnest(p_topics, p_payloads, p_attributes, p_ordering_keys)
        with ordinality as u (topic, payload, attributes, ordering_key, ordinal)
    inner join fastpubsub.topics as t on u.topic = t.id
    order by u.ordinal;
end;
$$;
