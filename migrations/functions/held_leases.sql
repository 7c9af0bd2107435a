-- Returns which of these deliveries their consumer still holds.
create or replace function fastpubsub.held_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint []
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_held bigint [];
begin
    select array_agg(h.position) into v_held
    from unnest(p_positions, p_tokens) as h (position, token)
    cross join lateral (
        select l.last_position, l.token from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position <= h.position and l.position > h.position - 100
        order by l.position desc
        limit 1
    ) as l
    where l.last_position >= h.position and l.token = h.token;
    return coalesce(v_held, '{}');
end;
$$;
