-- How many more messages of a subscription may be leased at once, and the first position that is. No lease begins before `leased_from` of
-- the newest claim, so this does not walk over all that were settled since.
create or replace function fastpubsub.room_in_flight(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer,
    out room integer,
    out first_leased bigint
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_leased_from bigint;
begin
    select c.leased_from into v_leased_from from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select greatest(p_max_in_flight - coalesce(sum(l.last_position - l.position + 1), 0), 0), min(l.position)
    into room_in_flight.room, room_in_flight.first_leased
    from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position >= coalesce(v_leased_from, 0);
end;
$$;
