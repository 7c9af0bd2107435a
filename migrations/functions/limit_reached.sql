-- Returns p_max_in_flight, which may be null, when as many messages of the subscription are leased.
create or replace function fastpubsub.limit_reached(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer
) returns integer
language plpgsql stable
as $$
declare
    v_flight record;
begin
    if p_max_in_flight is null then
        return null;
    end if;
    v_flight := fastpubsub.room_in_flight(p_topic_key, p_subscription_key, p_max_in_flight);
    return case when v_flight.room = 0 then p_max_in_flight end;
end;
$$;
