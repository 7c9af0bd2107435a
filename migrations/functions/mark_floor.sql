-- Moves the floor of a topic forward without a message. A mark takes the place of the one before. The caller holds the head.
create or replace function fastpubsub.mark_floor(p_floor fastpubsub.fired_messages, p_due_at timestamptz, p_now timestamptz)
returns fastpubsub.fired_messages
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_floor fastpubsub.fired_messages;
begin
    if p_floor.position is null then
        delete from fastpubsub.fired_messages as f
        where f.topic_key = p_floor.topic_key and f.due_at = p_floor.due_at and f.delayed_key = p_floor.delayed_key;
    end if;
    insert into fastpubsub.fired_messages (topic_key, due_at, delayed_key, created_at)
    values (p_floor.topic_key, p_due_at, 0, p_now)
    returning * into v_floor;
    return v_floor;
end;
$$;
