-- Stores messages in their order: those without a p_due_at in the log, from first_position on (0 when there are none), the others aside,
-- under their p_delayed_keys, or under new ones, with what says when they expire. The caller holds the head.
create or replace function fastpubsub.publish_and_delay(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_due_at timestamptz [],
    p_delayed_keys bigint [],
    p_now timestamptz,
    p_ttl_seconds integer [] default null,
    p_expires_at timestamptz [] default null,
    out first_position bigint,
    out created_at timestamptz,
    out delayed_keys bigint []
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    v_now integer [] := array_positions(p_due_at, null);
    v_new integer [];
    v_new_keys bigint [];
    v_floor fastpubsub.fired_messages := fastpubsub.delayed_floor(p_topic_key, p_now);
begin
    first_position := 0;
    created_at := date_trunc('milliseconds', p_now);
    if cardinality(v_now) > 0 then
        select p.first_position, p.created_at into publish_and_delay.first_position, publish_and_delay.created_at
        from fastpubsub.publish_messages(
            p_topic_key,
            array(select p_payloads[u.place] from unnest(v_now) as u (place)),
            array(select p_attributes[u.place] from unnest(v_now) as u (place)),
            null,
            p_now,
            array(select p_ordering_keys[u.place] from unnest(v_now) as u (place)),
            array(select p_ttl_seconds[u.place] from unnest(v_now) as u (place)),
            array(select p_expires_at[u.place] from unnest(v_now) as u (place))
        ) as p;
    end if;
    -- What is due at or before the floor becomes due right after it, so that no message stays behind.
    insert into fastpubsub.delayed_messages (
        topic_key, delayed_key, due_at, created_at, payload, attributes, ordering_key, ttl_seconds, expires_at
    )
    select
        p_topic_key, u.delayed_key, greatest(u.due_at, v_floor.due_at + interval '1 microsecond'), publish_and_delay.created_at,
        u.payload, p_attributes[u.place], p_ordering_keys[u.place], p_ttl_seconds[u.place], p_expires_at[u.place]
    from unnest(p_delayed_keys, p_due_at, p_payloads) with ordinality as u (delayed_key, due_at, payload, place)
    where u.due_at is not null and u.delayed_key is not null;
    delayed_keys := coalesce(p_delayed_keys, array_fill(null::bigint, array[cardinality(p_due_at)]));
    v_new := array(
        select u.place::integer
        from unnest(p_due_at, publish_and_delay.delayed_keys) with ordinality as u (due_at, delayed_key, place)
        where u.due_at is not null and u.delayed_key is null
        order by u.place
    );
    with stored as (
        insert into fastpubsub.delayed_messages (
            topic_key, due_at, created_at, payload, attributes, ordering_key, ttl_seconds, expires_at
        )
        select
            p_topic_key, greatest(p_due_at[u.place], v_floor.due_at + interval '1 microsecond'), publish_and_delay.created_at,
            p_payloads[u.place], p_attributes[u.place], p_ordering_keys[u.place], p_ttl_seconds[u.place], p_expires_at[u.place]
        from unnest(v_new) with ordinality as u (place, ordinal)
        order by u.ordinal
        returning delayed_key
    )

    select array_agg(s.delayed_key order by s.delayed_key) into v_new_keys
    from stored as s;
    for i in 1..cardinality(v_new) loop
        delayed_keys[v_new[i]] := v_new_keys[i];
    end loop;
end;
$$;
