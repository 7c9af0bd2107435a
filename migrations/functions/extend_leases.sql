-- Moves the deadline of held deliveries to p_extend_seconds from now. Per id: 1 still held, 0 gone, 2 stale.
create or replace function fastpubsub.extend_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_extend_seconds integer [],
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_id record;
    v_outcomes smallint [] := array_fill(0::smallint, array[cardinality(p_positions)]);
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    for v_id in
        select i.position, i.token, i.created_at, i.extend_seconds, i.ordinal
        from unnest(p_positions, p_tokens, p_created_at, p_extend_seconds)
            with ordinality as i (position, token, created_at, extend_seconds, ordinal)
        order by i.position, i.ordinal
    loop
        update fastpubsub.leases as l
        set expires_at = coalesce(p_now, clock_timestamp()) + make_interval(secs => v_id.extend_seconds)
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_id.position
            and coalesce(l.token = v_id.token, l.created_at = v_id.created_at);
        if found then
            v_outcomes[v_id.ordinal] := 1;
        elsif
            exists (
                select from fastpubsub.leases as l
                where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_id.position
            )
        then
            v_outcomes[v_id.ordinal] := 2;
        end if;
    end loop;
    return v_outcomes;
end;
$$;
