-- Returns what checking a token needs: a token is no longer good when its version is not the current one or its client is not active.
create or replace function fastpubsub.get_client_state(p_id uuid, out token_version bigint, out is_active boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select c.token_version, c.is_active into get_client_state.token_version, get_client_state.is_active
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;
