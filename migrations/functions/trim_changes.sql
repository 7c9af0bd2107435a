-- Deletes up to p_limit of the oldest changes that are older than p_older_than_seconds. Returns how many it deleted.
create or replace function fastpubsub.trim_changes(p_older_than_seconds bigint, p_limit integer) returns bigint
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
    delete from fastpubsub.changes as c
    using (
        select o.ctid from fastpubsub.changes as o
        order by o.change_key
        limit p_limit
        for update skip locked
    ) as o
    where c.ctid = o.ctid and c.changed_at < clock_timestamp() - make_interval(secs => p_older_than_seconds);
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;
