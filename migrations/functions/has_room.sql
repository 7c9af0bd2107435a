-- Whether all subscriptions of a topic have room for so many more messages; the caller holds the head.
create or replace function fastpubsub.has_room(p_topic_key bigint, p_count integer) returns boolean
language plpgsql volatile as $$
declare
    v_room bigint := (fastpubsub.fullest_subscription(p_topic_key, fastpubsub.last_position(p_topic_key))).room;
begin
    return coalesce(v_room >= p_count, true);
end;
$$;
