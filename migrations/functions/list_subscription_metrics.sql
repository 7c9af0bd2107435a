-- The metrics of up to p_limit subscriptions for one scrape.
create or replace function fastpubsub.list_subscription_metrics(p_limit integer)
returns table (
    subscription_id text,
    topic_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    oldest_created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_subscription record;
begin
    for v_subscription in
        select s.id, t.id as topic_id, s.topic_key, s.subscription_key
        from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        order by s.subscription_key
        limit p_limit
    loop
        return query
        select v_subscription.id, v_subscription.topic_id, m.ahead, m.waiting, m.leased, m.dead, m.acked, m.oldest_created_at
        from fastpubsub.subscription_metrics(v_subscription.topic_key, v_subscription.subscription_key, 1000) as m;
    end loop;
end;
$$;
