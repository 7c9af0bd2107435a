-- Appends up to p_limit delayed messages that are due to their topic, in the order of their times, in one transaction, so each arrives
-- once. Their time to live counts from now on. `more` says whether there may be further ones. When nobody has done this for longer than
-- p_max_overdue_seconds (no server ran, or an old dump was restored), the floor passes what is overdue by more: it is held until somebody
-- releases, moves or cancels it.
create or replace function fastpubsub.publish_due_messages(
    p_topic_key bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_max_overdue_seconds bigint,
    p_mark_seconds integer,
    p_now timestamptz default null,
    out topic_id text,
    out published integer,
    out more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_floor fastpubsub.fired_messages;
    v_oldest timestamptz;
    v_delayed_keys bigint [];
    v_due_at timestamptz [];
    v_payloads json [];
    v_attributes jsonb [];
    v_ordering_keys text [];
    v_ttl_seconds integer [];
    v_expires_at timestamptz [];
    v_looked_at bigint;
    v_taken bigint;
    v_appended record;
begin
    perform fastpubsub.begin_call(true);
    published := 0;
    more := false;
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        return;
    end if;
    select t.id into publish_due_messages.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    v_now := coalesce(p_now, clock_timestamp());
    v_floor := fastpubsub.delayed_floor(p_topic_key, v_now);
    v_oldest := v_now - make_interval(secs => p_max_overdue_seconds);
    if v_floor.created_at < v_oldest and v_floor.due_at < v_oldest then
        update fastpubsub.heads as h set held_after = coalesce(h.held_after, v_floor.due_at), held_until = v_oldest
        where
            h.topic_key = p_topic_key
            and (
                select m.due_at from fastpubsub.delayed_messages as m
                where
                    m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                    and m.due_at <= v_oldest
                order by m.due_at, m.delayed_key
                limit 1
            ) is not null;
        v_floor := fastpubsub.mark_floor(v_floor, v_oldest, v_now);
    end if;
    with looked_at as materialized (
        select d.ctid, sum(d.bytes) over (order by d.due_at, d.delayed_key) - d.bytes as bytes_before
        from (
            select m.ctid, m.due_at, m.delayed_key, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as bytes
            from fastpubsub.delayed_messages as m
            where
                m.topic_key = p_topic_key and (m.due_at, m.delayed_key) > (v_floor.due_at, v_floor.delayed_key)
                and m.due_at <= v_now
            order by m.due_at, m.delayed_key
            limit p_limit
        ) as d
    ),
    taken as (
        delete from fastpubsub.delayed_messages as m
        using looked_at as l
        where m.topic_key = p_topic_key and m.ctid = l.ctid and l.bytes_before < p_max_bytes
        returning m.due_at, m.delayed_key, m.payload, m.attributes, m.ordering_key, m.ttl_seconds, m.expires_at
    )

    select
        array_agg(t.delayed_key order by t.due_at, t.delayed_key),
        array_agg(t.due_at order by t.due_at, t.delayed_key),
        array_agg(t.payload order by t.due_at, t.delayed_key),
        array_agg(t.attributes order by t.due_at, t.delayed_key),
        array_agg(t.ordering_key order by t.due_at, t.delayed_key),
        array_agg(t.ttl_seconds order by t.due_at, t.delayed_key),
        array_agg(t.expires_at order by t.due_at, t.delayed_key),
        (select count(*) from looked_at as l),
        (select count(*) from looked_at as l where l.bytes_before < p_max_bytes)
    into
        v_delayed_keys, v_due_at, v_payloads, v_attributes, v_ordering_keys, v_ttl_seconds, v_expires_at, v_looked_at, v_taken
    from taken as t;
    more := v_looked_at = p_limit or v_looked_at > v_taken;
    published := coalesce(cardinality(v_payloads), 0);
    if published > 0 then
        v_appended := fastpubsub.publish_messages(
            p_topic_key, v_payloads, v_attributes, null, v_now, v_ordering_keys, v_ttl_seconds, v_expires_at
        );
        insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, position, created_at)
        select p_topic_key, u.due_at, u.delayed_key, v_appended.first_position + u.ordinal - 1, v_appended.created_at
        from unnest(v_due_at, v_delayed_keys) with ordinality as u (due_at, delayed_key, ordinal);
    elsif not more and v_floor.created_at <= v_now - make_interval(secs => p_mark_seconds) and v_floor.due_at < v_now then
        perform fastpubsub.mark_floor(v_floor, v_now, v_now);
    end if;
end;
$$;
