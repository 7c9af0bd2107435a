-- Tells a key of a fair subscription by p_fair_by, 'ordering_key' or 'attributes.' and a name. Null for a message without one.
create or replace function fastpubsub.fair_key(p_fair_by text, p_ordering_key text, p_attributes jsonb) returns bigint
language sql immutable
as $$
    select hashtextextended(case when p_fair_by = 'ordering_key' then p_ordering_key else p_attributes ->> substr(p_fair_by, 12) end, 0)
$$;
