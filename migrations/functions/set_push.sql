-- Turns push on, changes it, or turns it off; the caller holds the cursor. p_push has the settings as users see them and, in base64, the
-- sealed headers and a sealed secret, which is for an endpoint that has none, or one for another kind of signature. Returns whether the
-- secret was taken.
create or replace function fastpubsub.set_push(p_topic_key bigint, p_subscription_key bigint, p_push json) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_endpoint fastpubsub.endpoints;
    v_is_new boolean;
begin
    update fastpubsub.cursors as c set is_pushed = case when p_push is not null then true end
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if p_push is null then
        delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        return false;
    end if;
    select e.* into v_endpoint from fastpubsub.endpoints as e
    where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    for update;
    v_is_new := not found
    or coalesce(v_endpoint.settings ->> 'signature', 'hmac') <> coalesce(p_push -> 'settings' ->> 'signature', 'hmac');
    if v_is_new then
        delete from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        v_endpoint := null;
        v_endpoint.secret := decode(p_push ->> 'secret', 'base64');
    end if;
    perform fastpubsub.renew_endpoint(
        p_topic_key, p_subscription_key, p_push -> 'settings', decode(p_push ->> 'headers', 'base64'), v_endpoint.secret,
        v_endpoint.old_secret, v_endpoint.old_secret_expires_at
    );
    return v_is_new;
end;
$$;
