-- For a caller that has deleted the copies of a run of messages: deletes how their deliveries failed, unless the topic still has them.
create or replace function fastpubsub.forget_failures(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_last_position bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
    -- What is trimmed is older than what is not.
    if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position) then
        return;
    end if;
    delete from fastpubsub.failures as f
    where
        f.topic_key = p_topic_key and f.subscription_key = p_subscription_key
        and f.position >= p_position and f.position <= p_last_position
        and not exists (
            select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = f.position offset 0
        );
end;
$$;
