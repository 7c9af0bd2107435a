-- Forgets the dispatchers that are gone.
create or replace function fastpubsub.trim_dispatchers(
    p_old_seconds double precision default 60,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.dispatchers as d
    where d.seen_at < coalesce(p_now, clock_timestamp()) - make_interval(secs => p_old_seconds);
end;
$$;
