-- Returns what issuing a token needs. No other procedure returns a hash. old_secret_hash is null unless that secret is still good.
create or replace function fastpubsub.find_client_credentials(
    p_id uuid,
    p_now timestamptz default null,
    out secret_hash text,
    out old_secret_hash text,
    out scopes text,
    out is_active boolean,
    out token_version bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select
        c.secret_hash,
        case when c.old_secret_expires_at > coalesce(p_now, clock_timestamp()) then c.old_secret_hash end,
        c.scopes, c.is_active, c.token_version
    into find_client_credentials.secret_hash, find_client_credentials.old_secret_hash, find_client_credentials.scopes,
        find_client_credentials.is_active, find_client_credentials.token_version
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;
