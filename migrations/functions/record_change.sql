-- Called in the transaction of the change.
create or replace function fastpubsub.record_change(
    p_client_id text,
    p_request_id text,
    p_action text,
    p_object text,
    p_object_id text,
    p_body json
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into fastpubsub.changes (changed_at, client_id, request_id, action, object, object_id, body)
    values (clock_timestamp(), p_client_id, p_request_id, p_action, p_object, p_object_id, p_body);
end;
$$;
