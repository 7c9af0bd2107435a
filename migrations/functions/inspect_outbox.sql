-- How many rows wait in the outbox, counted up to p_limit, and the key of the first: when it stays the same, nobody relays. For
-- `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_outbox(p_limit integer, out waiting bigint, out first_key text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
