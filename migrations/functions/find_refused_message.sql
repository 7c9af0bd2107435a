-- Returns the key of the refused message that was a delayed one, null when there is none.
create or replace function fastpubsub.find_refused_message(p_topic_key bigint, p_delayed_key bigint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_incremental_sort = off
as $$
    select r.refused_key from fastpubsub.refused_messages as r
    where r.topic_key = p_topic_key and (r.topic_key, r.delayed_key) >= (p_topic_key, p_delayed_key) and r.delayed_key <= p_delayed_key
    -- With sorting off, only the index by these has this order.
    order by r.topic_key, r.delayed_key limit 1
$$;
