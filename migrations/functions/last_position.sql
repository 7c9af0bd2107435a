-- Returns the newest position of a topic, the right edge of the index; 0 when nothing was published.
create or replace function fastpubsub.last_position(p_topic_key bigint) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_last bigint;
begin
    select m.position into v_last
    from fastpubsub.messages as m
    where m.topic_key = p_topic_key
    order by m.position desc
    limit 1;
    return coalesce(v_last, 0);
end;
$$;
