-- Newest first; with p_redrive_key only that one.
create or replace function fastpubsub.list_redrives_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_redrive_key bigint default null
) returns setof fastpubsub.redrives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    select r.* from fastpubsub.redrives as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (p_redrive_key is null or r.redrive_key = p_redrive_key)
    order by r.redrive_key desc;
end;
$$;
