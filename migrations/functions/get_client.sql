create or replace function fastpubsub.get_client(
    p_id uuid,
    out id uuid,
    out name text,
    out scopes text,
    out is_active boolean,
    out token_version bigint,
    out created_at timestamptz,
    out updated_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    into get_client.id, get_client.name, get_client.scopes, get_client.is_active, get_client.token_version,
        get_client.created_at, get_client.updated_at
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;
