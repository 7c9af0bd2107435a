-- Returns the keys and ids of the topics that a caller may see, and of those with a subscription that it may see, each with these
-- subscriptions; a topic without has one row with nulls. p_topic_ids and p_subscription_ids are what it may see, null for all.
create or replace function fastpubsub.list_keys(p_topic_ids text [], p_subscription_ids text [])
returns table (topic_key bigint, topic_id text, is_visible boolean, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    select t.topic_key, t.id, p_topic_ids is null or t.id = any(p_topic_ids), s.subscription_key, s.id
    from fastpubsub.topics as t
    left join fastpubsub.subscriptions as s
        on t.topic_key = s.topic_key and (p_subscription_ids is null or s.id = any(p_subscription_ids))
    where p_topic_ids is null or t.id = any(p_topic_ids) or s.id is not null;
end;
$$;
