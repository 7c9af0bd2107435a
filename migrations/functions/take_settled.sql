-- Takes rows of topic 0 out of the outbox, in which transactions of applications say what they have settled, and adds
-- them up by subscription: for the counters. Those of a subscription that was deleted since have no name.
create or replace function fastpubsub.take_settled(
    p_transactions bigint [],
    p_ordinals bigint [],
    out topic_key bigint,
    out subscription_key bigint,
    out subscription_id text,
    out acked bigint,
    out nacked bigint,
    out rejected bigint,
    out dead_lettered bigint
) returns setof record
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
    perform fastpubsub.begin_call(false);
    return query
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal and p.topic_key = 0
            limit 1
        ) as p
        where o.ctid = p.ctid
        returning o.payload
    ),
    settled as (
        select
            r.topic_key, r.subscription_key, sum(r.acked)::bigint as acked, sum(r.nacked)::bigint as nacked,
            sum(r.rejected)::bigint as rejected, sum(r.dead_lettered)::bigint as dead_lettered
        from taken as t
        cross join lateral json_to_record(t.payload) as r (
            topic_key bigint, subscription_key bigint, acked bigint, nacked bigint, rejected bigint, dead_lettered bigint
        )
        group by r.topic_key, r.subscription_key
    )

    select d.topic_key, d.subscription_key, s.id, d.acked, d.nacked, d.rejected, d.dead_lettered
    from settled as d
    left join fastpubsub.subscriptions as s on d.subscription_key = s.subscription_key;
end;
$$;
