create or replace function fastpubsub.list_running_redrives(p_topic_keys bigint [] default null) returns table (
    topic_key bigint,
    subscription_key bigint,
    redrive_key bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    return query
    select r.topic_key, r.subscription_key, r.redrive_key
    from fastpubsub.redrives as r
    inner join fastpubsub.subscriptions as s on s.subscription_key = r.subscription_key
    where r.state = 'running' and (p_topic_keys is null or r.topic_key = any(p_topic_keys))
    order by r.redrive_key;
end;
$$;
