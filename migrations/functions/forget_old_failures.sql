-- Deletes all but the last 20 failures of a message.
create or replace function fastpubsub.forget_old_failures(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    v_failure_key bigint;
begin
    select f.failure_key into v_failure_key from fastpubsub.failures as f
    where f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
    order by f.failure_key desc
    offset 20
    limit 1;
    if found then
        delete from fastpubsub.failures as f
        where
            f.topic_key = p_topic_key and f.subscription_key = p_subscription_key and f.position = p_position
            and f.failure_key <= v_failure_key;
    end if;
end;
$$;
