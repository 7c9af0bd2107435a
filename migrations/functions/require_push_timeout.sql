-- A push must end before the lease of its message, or the message would be pushed a second time meanwhile.
create or replace function fastpubsub.require_push_timeout(p_topic_key bigint, p_subscription_key bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from fastpubsub.endpoints as e
    inner join fastpubsub.cursors as c on e.topic_key = c.topic_key and e.subscription_key = c.subscription_key
    where
        e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
        and (e.settings ->> 'timeout_seconds')::numeric >= c.ack_deadline_seconds;
    if found then
        raise exception using errcode = 'FP422', message = 'timeout_seconds of push must be below ack_deadline_seconds';
    end if;
end;
$$;
