-- Tells all servers of this database that messages are ready for waiting consumers. Call it in a transaction of its own: a commit with
-- notifications takes a lock that the whole cluster shares.
create or replace function fastpubsub.notify_servers(p_payloads text []) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payload text;
begin
    foreach v_payload in array p_payloads loop
        perform pg_notify('fastpubsub', v_payload);
    end loop;
end;
$$;
