-- Ordered by id. p_ids, when not null, holds the only ids that the caller may see.
create or replace function fastpubsub.list_clients(p_offset bigint, p_limit integer, p_ids uuid[] default null)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version bigint, created_at timestamptz, updated_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    from fastpubsub.clients as c
    where p_ids is null or c.id = any(p_ids)
    order by c.id
    offset p_offset
    limit p_limit;
end;
$$;
