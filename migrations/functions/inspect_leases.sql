-- Returns the lease with the earliest deadline, its consumer and its deadline; no row when there are no leases. For `fastpubsub doctor`;
-- writes nothing.
create or replace function fastpubsub.inspect_leases()
returns table (subscription_id text, consumer_id text, expires_at timestamptz)
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
    return query
    select s.id, l.consumer_id, l.expires_at
    from (
        select o.subscription_key, o.consumer_id, o.expires_at from fastpubsub.leases as o
        order by o.expires_at
        limit 1
    ) as l
    inner join fastpubsub.subscriptions as s on s.subscription_key = l.subscription_key;
end;
$$;
