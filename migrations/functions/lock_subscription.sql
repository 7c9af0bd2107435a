-- Takes the lock that every procedure holds while it inserts for a subscription. With p_unless_paused, one that is paused is not locked,
-- for that is a write; then nothing is returned.
create or replace function fastpubsub.lock_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_unless_paused boolean default false
) returns fastpubsub.cursors
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_cursor fastpubsub.cursors;
begin
    select c.* into v_cursor from fastpubsub.cursors as c
    where
        c.topic_key = p_topic_key and c.subscription_key = p_subscription_key and (c.paused_at is null or not p_unless_paused)
    for no key update;
    if not found and not (p_unless_paused and fastpubsub.is_paused(p_topic_key, p_subscription_key)) then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    return v_cursor;
end;
$$;
