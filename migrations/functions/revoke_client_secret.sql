-- Ends one of the two secrets of a client, and all of its tokens, because a token does not tell which secret it came from. The secret that
-- ends is the old one, or the newest, which leaves the old one without an end. Raises FP409 when there are not two. p_granted is as in
-- update_client.
create or replace function fastpubsub.revoke_client_secret(
    p_id uuid, p_newest boolean, p_granted text[] default null, p_now timestamptz default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
    if v_expires_at is null or v_expires_at <= v_now then
        raise exception using errcode = 'FP409', message = format('client "%s" has only one secret; give it another one first', p_id);
    end if;
    update fastpubsub.clients as c set
        secret_hash = case when p_newest then c.old_secret_hash else c.secret_hash end,
        old_secret_hash = null,
        old_secret_expires_at = null,
        token_version = c.token_version + 1,
        updated_at = v_now
    where c.id = p_id;
end;
$$;
