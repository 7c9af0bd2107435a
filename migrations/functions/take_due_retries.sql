-- Takes up to p_limit retries that are due at p_now, with their messages, in the order of (due_at, position) after the floor, up to
-- p_max_bytes together (at least one). `due_at` is that of the last one; with its position, it is the next floor.
-- `expires_at` is null when no message has one; a reprocessed dead letter has none.
create or replace function fastpubsub.take_due_retries(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out revived boolean [],
    out due_at timestamptz,
    out size bigint,
    out ordering_keys text [],
    out expires_at timestamptz []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_due_at timestamptz [];
    v_missing integer;
begin
    select
        array_agg(t.due_at), array_agg(t.position), array_agg(t.attempts + 1), array_agg(t.created_at), array_agg(t.payload),
        array_agg(t.attributes), array_agg(t.revived), sum(t.size),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at) end
    into
        v_due_at, take_due_retries.positions, take_due_retries.attempts, take_due_retries.created_at, take_due_retries.payloads,
        take_due_retries.attributes, take_due_retries.revived, take_due_retries.size,
        take_due_retries.ordering_keys, take_due_retries.expires_at
    from (
        select
            w.*, sum(w.size) over (order by w.due_at, w.position) as running,
            row_number() over (order by w.due_at, w.position) as ordinal
        from (
            select
                r.due_at, r.position, r.attempts, v.position is not null as revived,
                coalesce(m.created_at, v.created_at) as created_at, coalesce(m.payload, v.payload) as payload,
                coalesce(m.attributes, v.attributes) as attributes, coalesce(m.ordering_key, v.ordering_key) as ordering_key,
                case when v.position is null then m.expires_at end as expires_at,
                pg_column_size(coalesce(m.payload, v.payload))
                + coalesce(pg_column_size(coalesce(m.attributes, v.attributes)), 0) as size
            from (
                select r.due_at, r.position, r.attempts from fastpubsub.retries as r
                where
                    r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                    and (r.due_at, r.position) > (p_floor_due_at, p_floor_position) and r.due_at <= p_now
                order by r.due_at, r.position
                limit p_limit
            ) as r
            left join lateral (
                select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = r.position
                limit 1
            ) as m on true
            left join lateral (
                select v.position, v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
                where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
                limit 1
            ) as v on true
        ) as w
        order by w.due_at, w.position
    ) as t
    where t.running <= p_max_bytes or t.ordinal = 1 or t.payload is null;
    v_missing := array_position(take_due_retries.created_at, null);
    if v_missing is not null then
        raise exception using
            errcode = 'FP500',
            message = format(
                'position %s of topic_key %s waits for subscription_key %s and has no payload',
                take_due_retries.positions[v_missing], p_topic_key, p_subscription_key
            );
    end if;
    due_at := v_due_at[cardinality(v_due_at)];
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_due_retries.due_at, take_due_retries.positions[cardinality(v_due_at)]);
end;
$$;
