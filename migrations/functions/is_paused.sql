-- Whether a subscription, which must be there, hands out nothing at the moment.
create or replace function fastpubsub.is_paused(p_topic_key bigint, p_subscription_key bigint) returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_is_paused boolean;
begin
    select c.paused_at is not null into v_is_paused from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    return v_is_paused;
end;
$$;
