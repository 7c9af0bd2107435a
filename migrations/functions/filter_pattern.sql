-- Returns the regular expression of a `suffix`, an `equals-ignore-case` or a `wildcard`. It has no group and no back reference, so that
-- PostgreSQL decides it without backtracking. Only ASCII letters have no case, whatever the collation of the database is.
create or replace function fastpubsub.filter_pattern(p_operator text, p_text text) returns text
language sql immutable as $$
    select
        case when p_operator = 'suffix' then '' else '^' end
        || coalesce(string_agg(
            case
                when p_operator = 'wildcard' and p.token = '*' then '.*'
                when p_operator = 'equals-ignore-case' and p.token ~ '^[A-Za-z]$'
                then '[' || lower(p.token collate "C") || upper(p.token collate "C") || ']'
                when right(p.token, 1) ~ '[][\\.^$*+?(){}|]' then '\' || right(p.token, 1)
                else p.token
            end,
            '' order by p.ordinal
        ), '')
        || '$'
    from (
        select m.found[1] as token, m.ordinal
        from regexp_matches(p_text, case when p_operator = 'wildcard' then '\\[*\\]|.' else '.' end, 'g')
            with ordinality as m (found, ordinal)
    ) as p;
$$;
