-- Tells all servers of this database what consumers may wait for. Nothing else belongs into its transaction: a commit with
-- notifications takes a lock that is one for the whole cluster.
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
