-- Deletes rows of the outbox that were published on another node, or whose topic was deleted. Those with one of p_reasons do not match the
-- schema of the topic: they are kept apart, and counted in `refused`.
create or replace function fastpubsub.finish_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_reasons text [] default null,
    p_now timestamptz default null,
    out deleted integer,
    out refused integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    refused := 0;
    if p_reasons is not null then
        refused := fastpubsub.refuse_messages(
            p_topic_key, p_transactions, p_ordinals, p_reasons, coalesce(p_now, clock_timestamp())
        );
    end if;
    delete from fastpubsub.outbox as o
    using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
    cross join lateral (
        select p.ctid from fastpubsub.outbox as p
        where
            p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
            and p.topic_key = p_topic_key
        limit 1
    ) as p
    where o.ctid = p.ctid;
    get diagnostics deleted = row_count;
end;
$$;
