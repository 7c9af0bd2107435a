-- Moves those rows of the outbox that have one of p_reasons to what is refused of their topic, and returns how many;
-- the others stay. For relay_messages_2, which holds the head.
create or replace function fastpubsub.refuse_messages(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_reasons text [],
    p_now timestamptz
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_refused integer;
begin
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals, p_reasons) as u (transaction_id, ordinal, reason)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where
                p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
                and p.topic_key = p_topic_key
            limit 1
        ) as p
        where o.ctid = p.ctid and u.reason is not null
        returning
            o.transaction_id, o.ordinal, u.reason, o.payload, o.attributes, o.ordering_key, o.deliver_at, o.delayed_key,
            o.ttl_seconds, o.expires_at
    )

    insert into fastpubsub.refused_messages (
        topic_key, refused_at, reason, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
    )
    select
        p_topic_key, p_now, t.reason, t.payload, t.attributes, t.ordering_key, t.deliver_at, t.delayed_key, t.ttl_seconds,
        t.expires_at
    from taken as t
    order by t.transaction_id, t.ordinal;
    get diagnostics v_refused = row_count;
    return v_refused;
end;
$$;
