-- Returns what PostgreSQL knows about our tables: rows, dead rows that vacuum has not removed, size with indexes, the time of the last
-- vacuum of any kind, and whether autovacuum is on. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_tables()
returns table (table_name text, live bigint, dead bigint, bytes bigint, vacuumed_at timestamptz, autovacuum boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        s.relname::text,
        s.n_live_tup,
        s.n_dead_tup,
        pg_total_relation_size(s.relid),
        greatest(s.last_vacuum, s.last_autovacuum),
        not coalesce(c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off'], false)
    from pg_stat_all_tables as s inner join pg_class as c on s.relid = c.oid
    where s.schemaname = 'fastpubsub'
    order by s.relname;
end;
$$;
