-- Locks a schedule, after the head of its topic. p_revision is the one that the caller has seen; null is any.
create or replace function fastpubsub.lock_schedule(p_topic_key bigint, p_id text, p_revision bigint) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_revision bigint;
begin
    select s.revision into v_revision from fastpubsub.schedules as s
    where s.topic_key = p_topic_key and s.id = p_id
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('this topic has no schedule "%s"', p_id);
    elsif v_revision <> p_revision then
        raise exception using
            errcode = 'FP409',
            message = format('another request has changed the schedule "%s" at the same moment; try again', p_id);
    end if;
end;
$$;
