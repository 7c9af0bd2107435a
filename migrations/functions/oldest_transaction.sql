-- Returns since when the oldest transaction of this database is open, or prepared, that keeps vacuum from removing deleted rows, as far as
-- this role may see it; null without one.
create or replace function fastpubsub.oldest_transaction() returns timestamptz
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select min(t.since)
    from (
        select a.xact_start as since
        from pg_catalog.pg_stat_activity as a
        where
            a.datname = current_database() and a.pid <> pg_backend_pid()
            and coalesce(a.backend_xmin, a.backend_xid) is not null and coalesce(a.backend_type, '') <> 'autovacuum worker'
        union all
        select p.prepared from pg_catalog.pg_prepared_xacts as p where p.database = current_database()
    ) as t
$$;
