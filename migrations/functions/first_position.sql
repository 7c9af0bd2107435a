-- Returns the lowest kept position of a topic whose newest is p_last. Positions are dense and trimmed from the front, so a binary search of
-- point lookups finds it without walking over the rows that trimming left for vacuum.
create or replace function fastpubsub.first_position(p_topic_key bigint, p_last bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_low bigint := 1;
    v_high bigint := p_last;
    v_middle bigint;
begin
    -- As long as nothing was trimmed.
    if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = 1) then
        return 1;
    end if;
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_middle) then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low;
end;
$$;
