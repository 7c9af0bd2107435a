-- For applications: makes the messages of deliveries dead letters, with a reason of up to 1,024 characters, in the caller's own
-- transaction, as ack does. Needs the isolation level read committed: FP422 otherwise.
create or replace function fastpubsub.reject(subscription text, ack_ids text [], reason text default 'rejected') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if reject.reason is null or length(reject.reason) not between 1 and 1024 then
        raise exception using errcode = 'FP422', message = 'the reason of a reject has 1 to 1,024 characters';
    end if;
    perform fastpubsub.add_settlement(reject.subscription, 'reject', reject.ack_ids, null, reject.reason);
end;
$$;

revoke execute on function fastpubsub.reject(text, text [], text) from public;
