-- Returns the time of the database. The times of a schedule are reckoned from it, by a library outside of the database.
create or replace function fastpubsub.read_clock(p_now timestamptz default null) returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(p_now, clock_timestamp());
end;
$$;
