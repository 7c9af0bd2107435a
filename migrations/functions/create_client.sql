create or replace function fastpubsub.create_client(
    p_name text,
    p_scopes text,
    p_secret_hash text,
    p_is_active boolean,
    p_now timestamptz default null,
    out id uuid
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.begin_call(true);
    insert into fastpubsub.clients as c (id, name, scopes, secret_hash, is_active, created_at, updated_at)
    values (gen_random_uuid(), p_name, p_scopes, p_secret_hash, p_is_active, v_now, v_now)
    returning c.id into create_client.id;
end;
$$;
