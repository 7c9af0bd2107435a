-- Per id of a settle: 1 when it is among the leases that were settled, 2 when the message is held by another delivery, else 0.
create or replace function fastpubsub.settle_outcomes(
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_settled_positions bigint [],
    p_settled_tokens bigint [],
    p_settled_created_at timestamptz [],
    p_held_positions bigint []
) returns smallint []
language plpgsql stable
set enable_hashjoin = on
as $$
#variable_conflict use_column
begin
    return (
        select array_agg(case when s.position is not null then 1 when h.position is not null then 2 else 0 end order by i.ordinal)
        from unnest(p_positions, p_tokens, p_created_at) with ordinality as i (position, token, created_at, ordinal)
        left join unnest(p_settled_positions, p_settled_tokens, p_settled_created_at) as s (position, token, created_at)
            on i.position = s.position and coalesce(i.token = s.token, i.created_at = s.created_at)
        left join unnest(p_held_positions) as h (position) on i.position = h.position
    );
end;
$$;
