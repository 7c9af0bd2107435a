-- Returns rows of the outbox as they are, in the order of (transaction, ordinal), and the id of their topic, null for one that was deleted
-- since: for a relay that publishes them on another node. Rows that are gone are left out.
create or replace function fastpubsub.copy_outbox(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    out topic_id text,
    out transactions bigint [],
    out ordinals bigint [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text [],
    out due_at timestamptz [],
    out delayed_keys bigint [],
    out ttl_seconds integer [],
    out expires_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
begin
    select t.id into copy_outbox.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    select
        array_agg(r.transaction_id::text::bigint order by r.transaction_id, r.ordinal),
        array_agg(r.ordinal order by r.transaction_id, r.ordinal),
        array_agg(r.payload order by r.transaction_id, r.ordinal),
        array_agg(r.attributes order by r.transaction_id, r.ordinal),
        array_agg(r.ordering_key order by r.transaction_id, r.ordinal),
        array_agg(r.deliver_at order by r.transaction_id, r.ordinal),
        array_agg(r.delayed_key order by r.transaction_id, r.ordinal),
        array_agg(r.ttl_seconds order by r.transaction_id, r.ordinal),
        array_agg(r.expires_at order by r.transaction_id, r.ordinal)
    into
        copy_outbox.transactions, copy_outbox.ordinals, copy_outbox.payloads, copy_outbox.attributes, copy_outbox.ordering_keys,
        copy_outbox.due_at, copy_outbox.delayed_keys, copy_outbox.ttl_seconds, copy_outbox.expires_at
    from unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
    cross join lateral (
        select o.* from fastpubsub.outbox as o
        where
            o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal and o.topic_key = p_topic_key
        limit 1
    ) as r;
end;
$$;
