-- Returns when a message is due that is to come at a time or after a delay; null for one that is to come now.
create or replace function fastpubsub.due_time(p_deliver_at timestamptz, p_delay_seconds integer, p_now timestamptz)
returns timestamptz
language plpgsql immutable as $$
begin
    if p_deliver_at > p_now + interval '366 days' then
        raise exception using
            errcode = 'FP422',
            message = 'a message cannot be delayed for more than a year; publish it later, or use an earlier `deliver_at`';
    end if;
    return coalesce(p_deliver_at, p_now + make_interval(secs => p_delay_seconds));
end;
$$;
