-- Up to where a subscription has read its topic.
create or replace function fastpubsub.cursor_position(p_topic_key bigint, p_subscription_key bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    return (
        select c.position from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1
    );
end;
$$;
