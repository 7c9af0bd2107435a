create or replace function fastpubsub.resolve_subscription(p_id text, out topic_key bigint, out subscription_key bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select s.topic_key, s.subscription_key
    into resolve_subscription.topic_key, resolve_subscription.subscription_key
    from fastpubsub.subscriptions as s where s.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
end;
$$;
