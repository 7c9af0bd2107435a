-- How many more messages of a subscription its limits let through now, null for any number; the first position that is leased, as
-- room_in_flight finds it; and in how many seconds it is worth asking again once they are taken: a fast rate is not asked for each message.
create or replace function fastpubsub.room_to_claim(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_max_in_flight integer,
    p_rate_limit double precision,
    p_now timestamptz,
    out room integer,
    out first_leased bigint,
    out seconds double precision
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_full_at timestamptz;
    v_bucket double precision;
    v_whole integer;
begin
    if p_max_in_flight is not null then
        select r.room, r.first_leased, 0.5 into room_to_claim.room, room_to_claim.first_leased, room_to_claim.seconds
        from fastpubsub.room_in_flight(p_topic_key, p_subscription_key, p_max_in_flight) as r;
    end if;
    if p_rate_limit is not null then
        select c.full_at into v_full_at from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1;
        v_bucket := greatest(fastpubsub.bucket_messages(p_rate_limit, v_full_at, p_now), 0);
        -- A message that lacks less than what the microseconds of a time are rounded by is there.
        v_whole := floor(v_bucket + 0.00001);
        if room_to_claim.room > v_whole then
            seconds := null;
        end if;
        if room_to_claim.room < v_whole then
            return;
        end if;
        room := v_whole;
        seconds := greatest(room_to_claim.seconds, (v_whole + 1 - v_bucket) / p_rate_limit, 0.05);
    end if;
end;
$$;
