-- Returns the floor of a topic: what is due up to it was appended or is held. The caller holds the head, so nobody moves the floor
-- meanwhile. The first delayed message of a topic makes its first floor.
create or replace function fastpubsub.delayed_floor(p_topic_key bigint, p_now timestamptz) returns fastpubsub.fired_messages
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_floor fastpubsub.fired_messages;
begin
    select f.* into v_floor from fastpubsub.fired_messages as f
    where f.topic_key = p_topic_key
    order by f.due_at desc, f.delayed_key desc
    limit 1;
    if not found then
        update fastpubsub.heads as h set has_delayed = true where h.topic_key = p_topic_key;
        insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, created_at)
        values (p_topic_key, p_now, 0, p_now)
        returning * into v_floor;
    end if;
    return v_floor;
end;
$$;
