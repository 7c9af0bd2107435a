-- Returns how many topics and subscriptions a caller may see, and how many messages were ever published to these topics. Null is all.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.sum_topics(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_topic_keys bigint [] default null,
    out topics bigint,
    out subscriptions bigint,
    out published bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select count(*), coalesce(sum(
        case when p_topic_keys is null or t.topic_key = any(p_topic_keys) then fastpubsub.last_position(t.topic_key) end
    ), 0)
    into sum_topics.topics, sum_topics.published
    from fastpubsub.topics as t where p_topic_ids is null or t.id = any(p_topic_ids);
    select count(*) into sum_topics.subscriptions
    from fastpubsub.subscriptions as s where p_subscription_ids is null or s.id = any(p_subscription_ids);
end;
$$;
