-- Makes a process the one that looks for work most often. The process that was it before sees the change the next time that it looks.
create or replace function fastpubsub.hold_job(p_name text, p_holder text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    update fastpubsub.jobs as j set holder = p_holder where j.name = p_name;
end;
$$;
