-- Deletes what processes wrote that are gone.
create or replace function fastpubsub.trim_consumers(p_old_seconds double precision default 60, p_now timestamptz default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.consumers as c
    where c.seen_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
    delete from fastpubsub.processes as p
    where p.expected_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
end;
$$;
