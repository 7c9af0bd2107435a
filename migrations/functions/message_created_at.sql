-- Returns when the message of a lease or a retry was published: the time in the log, or in the copy of a reprocessed dead letter. Null when
-- there is no such position.
create or replace function fastpubsub.message_created_at(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint
) returns timestamptz
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    return coalesce(
        (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position),
        (
            select v.created_at from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p_position
        )
    );
end;
$$;
