-- For a claim of a fair subscription: puts the messages in (p_after, p_to] aside if all of them have keys of the
-- messages shortly before, which are few and busy, and returns whether it did. It counts entries of an index, and so
-- costs a twentieth of pass_busy_keys, for a log in which a few keys have nearly everything.
create or replace function fastpubsub.leap_busy_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_to bigint
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_looked_at constant bigint := 256;
    c_keys constant integer := 32;
    v_hash bigint;
    v_hashes bigint [];
    v_left bigint := p_to - p_after;
    v_position bigint;
    v_before bigint [];
    v_last bigint [];
begin
    select array_agg(distinct hashtextextended(m.ordering_key, 0)) into v_hashes from fastpubsub.messages as m
    where m.topic_key = p_topic_key and m.position > p_after - c_looked_at and m.position <= p_after;
    if cardinality(v_hashes) > c_keys then
        return false;
    end if;
    foreach v_hash in array v_hashes loop
        select k.position into v_position from fastpubsub.message_keys as k
        where k.topic_key = p_topic_key and k.key_hash = v_hash and k.position <= p_after
        order by k.position desc limit 1;
        perform from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_position;
        if not found then
            return false;
        end if;
        v_before := v_before || v_position;
        v_left := v_left - (
            select count(*) from fastpubsub.message_keys as k
            where k.topic_key = p_topic_key and k.key_hash = v_hash and k.position > p_after and k.position <= p_to
        );
        select k.position into v_position from fastpubsub.message_keys as k
        where k.topic_key = p_topic_key and k.key_hash = v_hash and k.position <= p_to
        order by k.position desc limit 1;
        v_last := v_last || v_position;
    end loop;
    if v_left > 0 then
        return false;
    end if;
    foreach v_position in array v_before loop
        delete from fastpubsub.busy_keys as b
        where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = v_position;
    end loop;
    insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
    select p_topic_key, p_subscription_key, u.position from unnest(v_last) as u (position);
    return true;
end;
$$;
