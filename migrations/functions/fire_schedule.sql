-- Publishes the message of a schedule once for each of p_times, and moves the schedule on to p_next_at, in one transaction: so each time
-- fires once, whichever process does it. When another one has done it (p_due_at, p_revision: what the caller has seen), `fired` is null,
-- and nothing is done. p_missed is how many times are given up, p_problem why. Without a p_due_at it is fired by hand, and moves nothing.
create or replace function fastpubsub.fire_schedule(
    p_topic_key bigint,
    p_id text,
    p_revision bigint,
    p_due_at timestamptz,
    p_times timestamptz [],
    p_missed bigint,
    p_next_at timestamptz,
    p_problem text,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out fired integer,
    out first_position bigint,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schedule record;
    v_now timestamptz;
    v_times timestamptz [] := p_times;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    select s.payload, s.attributes, s.ordering_key, s.next_at, s.revision into v_schedule
    from fastpubsub.schedules as s
    where s.topic_key = p_topic_key and s.id = p_id
    for no key update;
    if p_due_at is null then
        perform fastpubsub.lock_schedule(p_topic_key, p_id, null);
    elsif v_schedule.next_at is distinct from p_due_at or v_schedule.revision <> p_revision then
        return;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_due_at is null then
        v_times := array[v_now];
    end if;
    fired := cardinality(v_times);
    if fired > 0 then
        perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
        select p.first_position, p.created_at into fire_schedule.first_position, fire_schedule.created_at
        from fastpubsub.publish_messages(
            p_topic_key,
            array_fill(v_schedule.payload, array[fire_schedule.fired]),
            array(
                select
                    coalesce(v_schedule.attributes, '{}') || jsonb_build_object(
                        'schedule_id', p_id,
                        'scheduled_at', to_char(u.time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                    )
                from unnest(v_times) with ordinality as u (time, ordinal)
                order by u.ordinal
            ),
            null,
            v_now,
            case when v_schedule.ordering_key is not null then array_fill(v_schedule.ordering_key, array[fire_schedule.fired]) end
        ) as p;
    end if;
    update fastpubsub.schedules as s set
        next_at = case when p_due_at is null then s.next_at else p_next_at end,
        last_fired_at = coalesce(fire_schedule.created_at, s.last_fired_at),
        last_position = coalesce(fire_schedule.first_position + fire_schedule.fired - 1, s.last_position),
        fired = s.fired + fire_schedule.fired,
        missed = s.missed + p_missed,
        problem = p_problem
    where s.topic_key = p_topic_key and s.id = p_id;
end;
$$;
