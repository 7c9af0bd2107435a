-- Dead letters, the oldest position first: those after p_after, or all but the first p_offset, which match: p_reason exactly, and died from
-- p_died_after on and before p_died_before; null is any. It looks at p_rows of them, beside those that it skips, and returns up to
-- p_max_bytes, but at least one.
--
-- The last row has no created_at. It says after which position the next page begins, null at the end.
create or replace function fastpubsub.list_dead_letters_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_offset bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_after bigint default null,
    p_reason text default null,
    p_died_after timestamptz default null,
    p_died_before timestamptz default null,
    p_rows integer default 100000
) returns table (
    message_position bigint,
    created_at timestamptz,
    died_at timestamptz,
    attempts integer,
    reason text,
    payload json,
    attributes jsonb,
    ordering_key text,
    failures json
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_positions bigint [];
    v_next bigint;
    v_bytes bigint := 0;
    v_letter record;
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    -- The rows that are looked at are not sorted or stored: this ends when enough are found.
    v_positions := array(
        select d.position
        from (
            select d.position, d.reason, d.died_at from fastpubsub.dead_letters as d
            where
                d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position > coalesce(p_after, 0)
            order by d.position
            limit p_offset + p_rows
        ) as d
        where
            (p_reason is null or d.reason = p_reason)
            and (p_died_after is null or d.died_at >= p_died_after) and (p_died_before is null or d.died_at < p_died_before)
        order by d.position
        offset p_offset
        limit p_limit + 1
    );
    if cardinality(v_positions) > p_limit then
        v_next := v_positions[p_limit];
    else
        select d.position into v_next from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position > coalesce(p_after, 0)
        order by d.position
        offset p_offset + p_rows - 1
        limit 1;
    end if;
    for i in 1..least(cardinality(v_positions), p_limit) loop
        select d.* into v_letter from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_positions[i];
        v_bytes := v_bytes + pg_column_size(v_letter.payload) + coalesce(pg_column_size(v_letter.attributes), 0);
        if i > 1 and v_bytes > p_max_bytes then
            v_next := v_positions[i - 1];
            exit;
        end if;
        message_position := v_letter.position;
        created_at := v_letter.created_at;
        died_at := v_letter.died_at;
        attempts := v_letter.attempts;
        reason := v_letter.reason;
        payload := v_letter.payload;
        attributes := v_letter.attributes;
        ordering_key := v_letter.ordering_key;
        failures := fastpubsub.failures_of(p_topic_key, p_subscription_key, v_letter.position);
        return next;
    end loop;
    message_position := v_next;
    created_at := null;
    payload := null;
    attributes := null;
    ordering_key := null;
    failures := null;
    return next;
end;
$$;
