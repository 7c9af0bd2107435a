-- Deletes up to p_limit rows per table of one deleted topic or subscription. Returns how many rows it deleted, or null
-- when there was nothing left to delete. p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.empty_purges(p_limit integer default 5000, p_topic_keys bigint [] default null) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_purge fastpubsub.purges;
    v_table text;
    v_rows bigint;
    v_found tid [];
    v_deleted bigint := 0;
begin
    perform fastpubsub.begin_call(false);
    select p.* into v_purge from fastpubsub.purges as p
    where (p_topic_keys is null or p.topic_key = any(p_topic_keys))
    order by p.purge_key limit 1 for update skip locked;
    if not found then
        return null;
    end if;
    foreach v_table in array array ['leases', 'endpoints', 'push_attempts', 'failures', 'retries', 'dead_letters', 'redrives', 'revived', 'claims', 'filter_history', 'subscription_uses', 'history', 'consumers', 'parked', 'busy_keys', 'bundles', 'idempotency_keys', 'refused_messages', 'delayed_messages', 'fired_messages', 'message_keys', 'messages'] loop
        continue when v_table in ('idempotency_keys', 'refused_messages', 'delayed_messages', 'fired_messages', 'message_keys', 'messages') and v_purge.subscription_key is not null;
        execute format(
            'select array(select t.ctid from fastpubsub.%I as t where t.topic_key = $1%s limit $3)',
            v_table, case when v_purge.subscription_key is not null then ' and t.subscription_key = $2' else '' end
        ) into v_found using v_purge.topic_key, v_purge.subscription_key, p_limit;
        continue when cardinality(v_found) = 0;
        -- By their places: an index would be walked for all rows of the topic. Nobody updates these rows, so each is still where it was.
        perform set_config('enable_indexscan', 'off', true);
        execute format('delete from fastpubsub.%I as t where t.topic_key = $1 and t.ctid = any($2)', v_table)
        using v_purge.topic_key, v_found;
        get diagnostics v_rows = row_count;
        v_deleted := v_deleted + v_rows;
        perform set_config('enable_indexscan', 'on', true);
    end loop;
    if v_deleted = 0 then
        delete from fastpubsub.purges as p where p.purge_key = v_purge.purge_key;
    end if;
    return v_deleted;
end;
$$;
