-- Returns of the named topics how many messages were ever published, also per second over the last minute, how many the log still has,
-- and the number of subscriptions.
create or replace function fastpubsub.list_topic_figures(p_ids text [])
returns table (topic_id text, published bigint, kept bigint, subscriptions bigint, published_rate double precision)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        t.id, l.position, case when l.position > 0 then l.position - fastpubsub.first_position(t.topic_key, l.position) + 1 else 0 end,
        (select count(*) from fastpubsub.subscriptions as s where s.topic_key = t.topic_key), r.published
    from fastpubsub.topics as t
    cross join lateral fastpubsub.last_position(t.topic_key) as l (position)
    cross join lateral fastpubsub.recent_rates(t.topic_key, 0) as r
    where t.id = any(p_ids);
end;
$$;
