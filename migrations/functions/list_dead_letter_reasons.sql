-- The reasons of the dead letters, the most frequent first.
create or replace function fastpubsub.list_dead_letter_reasons(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limit integer
) returns table (reason text, letters bigint, first_died_at timestamptz, last_died_at timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    select d.reason, count(*), min(d.died_at), max(d.died_at)
    from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
    group by d.reason
    order by 2 desc, 1
    limit p_limit;
end;
$$;
