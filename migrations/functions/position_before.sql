-- Returns the cursor position that the first message created at or after p_time follows; creation times never fall along a topic.
create or replace function fastpubsub.position_before(p_topic_key bigint, p_time timestamptz) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_last bigint := fastpubsub.last_position(p_topic_key);
    v_low bigint := fastpubsub.first_position(p_topic_key, v_last);
    v_high bigint := v_last + 1;
    v_middle bigint;
begin
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        if (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_middle) >= p_time then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low - 1;
end;
$$;
