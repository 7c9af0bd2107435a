-- Counts the processes of servers that live, and the connections that they may take together. A standby does not know any.
create or replace function fastpubsub.inspect_processes(p_now timestamptz default null, out processes bigint, out connections bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    processes := 0;
    connections := 0;
    if pg_is_in_recovery() then
        return;
    end if;
    select count(*), coalesce(sum(p.connections), 0) into inspect_processes.processes, inspect_processes.connections
    from fastpubsub.processes as p where p.expected_at > coalesce(p_now, clock_timestamp());
end;
$$;
