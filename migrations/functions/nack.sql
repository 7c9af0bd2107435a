-- For applications: gives deliveries back for another attempt, after delay_seconds (0 to a week; null: the backoff), in the caller's own
-- transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.nack(subscription text, ack_ids text [], delay_seconds integer default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if nack.delay_seconds not between 0 and 604800 then
        raise exception using
            errcode = 'FP422', message = format('delay_seconds is 0 to 604800 (a week), not %s', nack.delay_seconds);
    end if;
    perform fastpubsub.add_settlement(nack.subscription, 'nack', nack.ack_ids, nack.delay_seconds, null);
end;
$$;

revoke execute on function fastpubsub.nack(text, text [], integer) from public;
