-- Counts the rows that wait in the outbox, up to p_limit, and returns the key of the first one: as long as it stays the same, no server
-- relays. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_outbox(p_limit integer, out waiting bigint, out first_key text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    select count(*), (array_agg(o.transaction_id || '/' || o.ordinal))[1] into waiting, first_key
    from (
        select a.transaction_id, a.ordinal from fastpubsub.outbox as a
        order by a.transaction_id, a.ordinal
        limit p_limit
    ) as o;
end;
$$;
