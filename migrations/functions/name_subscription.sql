-- Gives the name to a new subscription, whose cursor the caller inserts. Waits for a deletion of the topic, not for publishers.
create or replace function fastpubsub.name_subscription(
    p_id text,
    p_topic_id text,
    p_filter json,
    p_now timestamptz,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    select t.topic_key into name_subscription.topic_key from fastpubsub.topics as t where t.id = p_topic_id;
    perform from fastpubsub.heads as h where h.topic_key = name_subscription.topic_key for key share;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_topic_id);
    end if;
    insert into fastpubsub.subscriptions as s (topic_key, id, filter, created_at)
    values (name_subscription.topic_key, p_id, p_filter, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning s.subscription_key, s.created_at into name_subscription.subscription_key, name_subscription.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('subscription "%s" already exists', p_id);
    end if;
end;
$$;
