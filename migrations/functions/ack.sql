-- For applications: acks deliveries in the caller's own transaction, by the ack ids of a pull, so that a message is settled exactly if the
-- work for it commits. The delivery ends at the commit, where FP410 is raised, and the work rolled back, if it is no longer held. Until
-- then nobody else gets its message, at most ten minutes beyond its deadline. Takes no lock that others wait for, and does not change
-- the caller's settings. FP404: unknown subscription; FP410: no longer held; FP422: no ack ids.
create or replace function fastpubsub.ack(subscription text, ack_ids text []) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.add_settlement(ack.subscription, 'ack', ack.ack_ids, null, null);
end;
$$;

revoke execute on function fastpubsub.ack(text, text []) from public;
