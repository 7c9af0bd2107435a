-- Returns, for one scrape, how many messages were ever published to each of up to p_limit topics.
create or replace function fastpubsub.list_topic_metrics(p_limit integer)
returns table (topic_id text, published bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, fastpubsub.last_position(t.topic_key)
    from fastpubsub.topics as t
    order by t.topic_key
    limit p_limit;
end;
$$;
