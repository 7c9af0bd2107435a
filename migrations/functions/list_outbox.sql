-- Lists rows of the outbox after a given one, in the order of (transaction, ordinal), up to p_limit rows and p_max_bytes of payloads (at
-- least one row). p_seen is the snapshot of an earlier call that took every row that it saw. With it, only rows of transactions that had
-- not ended in that snapshot are read, each by its key, so that the scan does not walk over rows that were moved since; without it, all
-- rows are read. `seen` is the p_seen of later calls. `held` says whether p_holder holds the job, `more` whether there are further rows.
-- Writes nothing.
create or replace function fastpubsub.list_outbox(
    p_seen text,
    p_after_transaction bigint,
    p_after_ordinal bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_holder text default null,
    out held boolean,
    out seen text,
    out topic_keys bigint [],
    out transactions bigint [],
    out ordinals bigint [],
    out more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- Taken before the rows are read: a transaction that it shows as running may be seen below; its rows then come again and are gone.
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_seen pg_snapshot := p_seen::pg_snapshot;
    v_transaction xid8 := p_after_transaction::text::xid8;
    v_ordinal bigint := p_after_ordinal;
    v_rows bigint;
begin
    held := coalesce((select j.holder = p_holder from fastpubsub.jobs as j where j.name = 'relay_messages'), false);
    seen := v_snapshot::text;
    -- After a failover, transaction ids may count from an earlier number.
    if pg_snapshot_xmax(v_seen) > pg_snapshot_xmax(v_snapshot) then
        v_seen := null;
    end if;
    if pg_snapshot_xmax(v_seen) > v_transaction then
        v_transaction := pg_snapshot_xmax(v_seen);
        v_ordinal := 0;
    end if;
    select
        array_agg(r.topic_key order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        array_agg(r.transaction_id::text::bigint order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        array_agg(r.ordinal order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        count(*)
    into topic_keys, transactions, ordinals, v_rows
    from (
        select
            b.topic_key, b.transaction_id, b.ordinal,
            sum(b.bytes) over (order by b.transaction_id, b.ordinal) - b.bytes as bytes_before
        from (
            (
                select l.topic_key, l.transaction_id, l.ordinal, l.bytes
                from pg_snapshot_xip(v_seen) as x (transaction_id)
                cross join lateral (
                    select o.topic_key, o.transaction_id, o.ordinal, pg_column_size(o.payload) as bytes
                    from fastpubsub.outbox as o
                    where
                        o.transaction_id = x.transaction_id
                        and (o.transaction_id, o.ordinal) > (p_after_transaction::text::xid8, p_after_ordinal)
                    order by o.transaction_id, o.ordinal
                    limit p_limit
                ) as l
            )
            union all
            (
                select o.topic_key, o.transaction_id, o.ordinal, pg_column_size(o.payload) as bytes
                from fastpubsub.outbox as o
                where (o.transaction_id, o.ordinal) > (v_transaction, v_ordinal)
                order by o.transaction_id, o.ordinal
                limit p_limit
            )
        ) as b
        order by b.transaction_id, b.ordinal
        limit p_limit
    ) as r;
    more := v_rows > 0 and (v_rows >= p_limit or cardinality(ordinals) < v_rows);
end;
$$;
