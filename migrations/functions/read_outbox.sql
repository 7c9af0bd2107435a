-- Returns the payloads of rows of the outbox, each in its place, null for one that is gone: to check them before they
-- are moved.
create or replace function fastpubsub.read_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint []
) returns json []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    return array(
        select coalesce(p.payload, 'null')
        from unnest(p_transactions, p_ordinals) with ordinality as u (transaction_id, ordinal, place)
        left join lateral (
            select o.payload from fastpubsub.outbox as o
            where
                o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal
                and o.topic_key = p_topic_key
            limit 1
        ) as p on true
        order by u.place
    );
end;
$$;
