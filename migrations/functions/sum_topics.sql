-- Returns how many topics and subscriptions a caller may see, and how many messages were ever published to these topics. Null is all.
create or replace function fastpubsub.sum_topics(
    p_topic_ids text [],
    p_subscription_ids text [],
    out topics bigint,
    out subscriptions bigint,
    out published bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select count(*), coalesce(sum(fastpubsub.last_position(t.topic_key)), 0)
    into sum_topics.topics, sum_topics.published
    from fastpubsub.topics as t where p_topic_ids is null or t.id = any(p_topic_ids);
    select count(*) into sum_topics.subscriptions
    from fastpubsub.subscriptions as s where p_subscription_ids is null or s.id = any(p_subscription_ids);
end;
$$;
