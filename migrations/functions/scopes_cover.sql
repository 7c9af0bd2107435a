-- Returns whether p_granted covers p_scopes (both separated by spaces): it must hold each scope itself, its global form, or `*`. A null
-- p_granted covers everything.
create or replace function fastpubsub.scopes_cover(p_granted text[], p_scopes text) returns boolean
language plpgsql immutable as $$
begin
    return p_granted is null
        or '*' = any(p_granted)
        or not exists (
            select from unnest(string_to_array(p_scopes, ' ')) as w (scope)
            where not (
                w.scope = any(p_granted)
                or split_part(w.scope, ':', 1) || ':' || split_part(w.scope, ':', 2) = any(p_granted)
            )
        );
end;
$$;
