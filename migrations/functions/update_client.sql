-- Every call ends all tokens of the client. A null p_is_active keeps the current state. p_granted, when not null, holds the scopes of the
-- caller, which must cover the present scopes of the client. Returns the client as it is now.
create or replace function fastpubsub.update_client(
    p_id uuid,
    p_name text,
    p_scopes text,
    p_is_active boolean default null,
    p_granted text[] default null,
    p_now timestamptz default null,
    out id uuid,
    out name text,
    out scopes text,
    out is_active boolean,
    out token_version bigint,
    out created_at timestamptz,
    out updated_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_scopes text;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes into v_scopes from fastpubsub.clients as c where c.id = p_id for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you do not have; you cannot change it', p_id);
    end if;
    update fastpubsub.clients as c set
        name = p_name,
        scopes = p_scopes,
        is_active = coalesce(p_is_active, c.is_active),
        token_version = c.token_version + 1,
        updated_at = coalesce(p_now, clock_timestamp())
    where c.id = p_id
    returning c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    into update_client.id, update_client.name, update_client.scopes, update_client.is_active, update_client.token_version,
        update_client.created_at, update_client.updated_at;
end;
$$;
