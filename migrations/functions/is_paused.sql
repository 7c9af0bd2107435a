-- Whether a subscription, which must be there, hands out nothing at the moment. With p_is_push, it must be pushed or must not be.
create or replace function fastpubsub.is_paused(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_is_push boolean default null
) returns boolean
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_is_paused boolean;
    v_is_pushed boolean;
begin
    select c.paused_at is not null, coalesce(c.is_pushed, false) into v_is_paused, v_is_pushed from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    if v_is_pushed <> p_is_push then
        perform fastpubsub.refuse_claim(v_is_pushed);
    end if;
    return v_is_paused;
end;
$$;
