-- Returns the position that the oldest message follows which is ahead, leased or waiting, and still in the log. It is stable, so all of it
-- is one snapshot, in which no message is on its way from one table to another.
create or replace function fastpubsub.unsettled_position(p_topic_key bigint, p_subscription_key bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_first bigint := fastpubsub.first_position(p_topic_key, fastpubsub.last_position(p_topic_key));
    v_cursor fastpubsub.claims;
    v_leased bigint;
    v_waiting bigint;
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select min(greatest(l.position, v_first)) into v_leased from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.last_position >= v_first;
    select min(r.position) into v_waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position >= v_first;
    return least(v_cursor.position, v_leased - 1, v_waiting - 1);
end;
$$;
