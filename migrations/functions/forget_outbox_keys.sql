-- Deletes what publish_outbox has kept of rows of the outbox that are gone. A crash may undo it.
create or replace function fastpubsub.forget_outbox_keys(p_topic_key bigint, p_keys text []) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.idempotency_keys as k
    using unnest(p_keys) as u (key)
    cross join lateral (
        select o.ctid from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and (o.client, o.key) >= ('*outbox', u.key) and (o.client, o.key) <= ('*outbox', u.key)
        order by o.client, o.key
        limit 1
    ) as o
    where k.topic_key = p_topic_key and k.ctid = o.ctid;
end;
$$;
