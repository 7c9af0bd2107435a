-- Says that a process ends: another takes over its background work when it looks next.
create or replace function fastpubsub.forget_process(p_process bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.processes as p where p.process = p_process;
end;
$$;
