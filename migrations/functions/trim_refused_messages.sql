-- Deletes up to p_limit messages that were refused more than p_old_seconds ago, and returns how many.
create or replace function fastpubsub.trim_refused_messages(
    p_old_seconds bigint,
    p_limit integer default 5000,
    p_now timestamptz default null
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_deleted bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.refused_messages as a
    using (
        select o.ctid from fastpubsub.refused_messages as o
        where o.refused_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds)
        order by o.refused_at
        limit p_limit
    ) as o
    where a.ctid = o.ctid;
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;
