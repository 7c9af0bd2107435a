-- Of up to p_limit subscriptions that are pushed, for one scrape: whether the breaker is open, and whether a process pushes that said so in
-- p_patience_seconds.
create or replace function fastpubsub.list_push_metrics(
    p_limit integer,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null
) returns table (topic_id text, subscription_id text, is_open boolean, is_held boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, s.id, e.failures is not null, d.process is not null
    from fastpubsub.endpoints as e
    inner join fastpubsub.subscriptions as s on e.subscription_key = s.subscription_key
    inner join fastpubsub.topics as t on e.topic_key = t.topic_key
    left join fastpubsub.dispatchers as d
        on e.holder = d.process and d.seen_at > coalesce(p_now, clock_timestamp()) - make_interval(secs => p_patience_seconds)
    order by e.subscription_key
    limit p_limit;
end;
$$;
