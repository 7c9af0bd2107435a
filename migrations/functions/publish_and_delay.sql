-- Stores messages in their order: those without a p_due_at in the log, from first_position on (0 when there are none), the others aside,
-- under their p_delayed_keys. The caller holds the head.
create or replace function fastpubsub.publish_and_delay(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_ordering_keys text [],
    p_due_at timestamptz [],
    p_delayed_keys bigint [],
    p_now timestamptz,
    out first_position bigint,
    out created_at timestamptz
)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    v_now integer [] := array_positions(p_due_at, null);
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
            array(select p_ordering_keys[u.place] from unnest(v_now) as u (place))
        ) as p;
    end if;
    -- What is due at or before the floor becomes due right after it, so that no message stays behind.
    insert into fastpubsub.delayed_messages (topic_key, delayed_key, due_at, created_at, payload, attributes, ordering_key)
    select
        p_topic_key, u.delayed_key, greatest(u.due_at, v_floor.due_at + interval '1 microsecond'), publish_and_delay.created_at,
        u.payload, p_attributes[u.place], p_ordering_keys[u.place]
    from unnest(p_delayed_keys, p_due_at, p_payloads) with ordinality as u (delayed_key, due_at, payload, place)
    where u.due_at is not null;
end;
$$;
