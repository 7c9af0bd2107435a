-- For applications: gives deliveries back for another attempt, after delay_seconds (0 to a week; null: the backoff), with a reason of up to
-- 1,024 characters, in the caller's own transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.nack(
    subscription text,
    ack_ids text [],
    delay_seconds integer default null,
    reason text default null
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if nack.delay_seconds not between 0 and 604800 then
        raise exception using
            errcode = 'FP422', message = format('delay_seconds is 0 to 604800 (a week), not %s', nack.delay_seconds);
    elsif length(nack.reason) not between 1 and 1024 then
        raise exception using errcode = 'FP422', message = 'the reason of a nack has 1 to 1,024 characters';
    end if;
    perform fastpubsub.add_settlement(nack.subscription, 'nack', nack.ack_ids, nack.delay_seconds, nack.reason);
end;
$$;

revoke execute on function fastpubsub.nack(text, text [], integer, text) from public;
