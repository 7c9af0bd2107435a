-- p_granted, when not null, holds the scopes of the caller. They must cover the scopes of the client.
create or replace function fastpubsub.delete_client(p_id uuid, p_granted text[] default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_scopes text;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes into v_scopes from fastpubsub.clients as c where c.id = p_id for update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you do not have; you cannot delete it', p_id);
    end if;
    delete from fastpubsub.clients as c where c.id = p_id;
end;
$$;
