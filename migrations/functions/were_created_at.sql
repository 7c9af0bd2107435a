-- Returns whether all messages of a lease were created at that time, as bare message ids say.
create or replace function fastpubsub.were_created_at(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_last_position bigint,
    p_revived boolean,
    p_created_at timestamptz
) returns boolean
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if p_revived then
        return p_last_position - p_position + 1 = (
            select count(*) from fastpubsub.revived as v
            where
                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                and v.position >= p_position and v.position <= p_last_position and v.created_at = p_created_at
        );
    end if;
    return p_last_position - p_position + 1 = (
        select count(*) from fastpubsub.messages as m
        where
            m.topic_key = p_topic_key and m.position >= p_position and m.position <= p_last_position
            and m.created_at = p_created_at
    );
end;
$$;
