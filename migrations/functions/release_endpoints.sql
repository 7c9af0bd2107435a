-- Says that a dispatcher stops: others hold its endpoints from now on.
create or replace function fastpubsub.release_endpoints(p_process bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    delete from fastpubsub.dispatchers as d where d.process = p_process;
    update fastpubsub.endpoints as e set holder = null where e.holder = p_process;
end;
$$;
