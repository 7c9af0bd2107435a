-- Makes this session listen to the notifications of notify_servers.
create or replace function fastpubsub.listen_to_servers() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    listen fastpubsub;
end;
$$;
