-- Gives the client another secret. The previous one lives on for p_old_seconds, and tokens stay good; with 0, every earlier secret and all
-- tokens end now. Raises FP409 while two secrets are good: ending one of them unasked could end the one in use. p_granted is as in
-- update_client.
create or replace function fastpubsub.rotate_client_secret(
    p_id uuid,
    p_secret_hash text,
    p_old_seconds integer,
    p_granted text[] default null,
    p_now timestamptz default null,
    out old_secret_expires_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_scopes text;
    v_expires_at timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes, c.old_secret_expires_at into v_scopes, v_expires_at
    from fastpubsub.clients as c where c.id = p_id for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you do not have; you cannot change it', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_old_seconds > 0 then
        if v_expires_at > v_now then
            raise exception using
                errcode = 'FP409',
                message = format('client "%s" already has two secrets; end one of them first, or both with old_secret_seconds 0', p_id);
        end if;
        rotate_client_secret.old_secret_expires_at := v_now + make_interval(secs => p_old_seconds);
    end if;
    update fastpubsub.clients as c set
        secret_hash = p_secret_hash,
        old_secret_hash = case when p_old_seconds > 0 then c.secret_hash end,
        old_secret_expires_at = rotate_client_secret.old_secret_expires_at,
        token_version = c.token_version + case when p_old_seconds > 0 then 0 else 1 end,
        updated_at = v_now
    where c.id = p_id;
end;
$$;
