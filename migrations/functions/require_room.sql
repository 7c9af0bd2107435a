-- For a publish that holds the head: raises FP429 when a subscription that rejects has no room at all, and FP430 when
-- it has some, or when the call has requests that store nothing (p_is_mixed), so that a part of the call may be done.
-- FP422: more than it can ever take.
create or replace function fastpubsub.require_room(
    p_topic_key bigint,
    p_last bigint,
    p_count integer,
    p_is_mixed boolean default false
) returns void
language plpgsql volatile as $$
declare
    v_fullest record;
    v_id text;
begin
    v_fullest := fastpubsub.fullest_subscription(p_topic_key, p_last);
    if p_count = 0 or v_fullest.subscription_key is null or v_fullest.room >= p_count then
        return;
    end if;
    select s.id into v_id from fastpubsub.subscriptions as s where s.subscription_key = v_fullest.subscription_key;
    if v_fullest.room > 0 and p_count > v_fullest.max_backlog then
        raise exception using
            errcode = 'FP422',
            message = format(
                'subscription "%s" can have %s messages before it (max_backlog), and %s were published at once: publish fewer',
                v_id, v_fullest.max_backlog, p_count
            );
    end if;
    raise exception using
        errcode = case when v_fullest.room > 0 or p_is_mixed then 'FP430' else 'FP429' end,
        message = format(
            'subscription "%s" is full: it has room for %s of its max_backlog of %s messages; '
            'try again when its consumers have come further',
            v_id, greatest(v_fullest.room, 0), v_fullest.max_backlog
        );
end;
$$;
