-- For a caller that has appended messages to a topic: stores their ordering keys, for ordered subscriptions.
create or replace function fastpubsub.store_keys(p_topic_key bigint, p_first_position bigint, p_ordering_keys text []) returns void
language plpgsql volatile
as $$
begin
    insert into fastpubsub.message_keys (topic_key, key_hash, position)
    select p_topic_key, hashtextextended(u.ordering_key, 0), p_first_position + u.ordinal - 1
    from unnest(p_ordering_keys) with ordinality as u (ordering_key, ordinal)
    where u.ordering_key is not null;
end;
$$;
