-- Returns the regular expression of the addresses in an IPv4 network; null for a text that is no network, or has bits after its prefix.
create or replace function fastpubsub.network_pattern(p_network text) returns text
language sql immutable as $$
    select '^' || string_agg(
        case
            when o.bits = 8 then o.value::text
            when o.bits = 0 then '([1-9]?[0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])'
            else '(' || (select string_agg(v::text, '|') from generate_series(o.value, o.value + (1 << (8 - o.bits)) - 1) as v) || ')'
        end, '\.' order by o.ordinal
    ) || '$'
    from (
        select
            u.part::integer as value, u.ordinal,
            greatest(least(m.parts[5]::integer - 8 * (u.ordinal::integer - 1), 8), 0) as bits
        from regexp_match(p_network, '^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})/([12]?\d|3[0-2])$') as m (parts)
        cross join lateral unnest(m.parts[1:4]) with ordinality as u (part, ordinal)
    ) as o
    having bool_and(o.value <= 255 and o.value % (1 << (8 - o.bits)) = 0);
$$;
