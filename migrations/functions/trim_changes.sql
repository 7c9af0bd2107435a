-- Deletes up to p_limit of the oldest changes that are older than p_older_than_seconds. Returns how many it deleted.
create or replace function fastpubsub.trim_changes(p_older_than_seconds bigint, p_limit integer) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_deleted bigint;
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.changes as c
    where
        c.change_key in (
            select o.change_key from fastpubsub.changes as o
            order by o.change_key
            limit p_limit
            for update skip locked
        )
        and c.changed_at < clock_timestamp() - make_interval(secs => p_older_than_seconds);
    get diagnostics v_deleted = row_count;
    return v_deleted;
end;
$$;
