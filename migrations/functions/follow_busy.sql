-- For a claim of an ordered subscription, whose cursor passes something of a key that is busy: p_position, until now the last message of
-- the key that it has passed, no longer says so. The caller writes down which one does. Where a lease of lonely messages said it, there is
-- something behind one of them from now on.
create or replace function fastpubsub.follow_busy(p_topic_key bigint, p_subscription_key bigint, p_position bigint) returns void
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    delete from fastpubsub.busy_keys as b
    where b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.position = p_position;
    if not found then
        update fastpubsub.leases as l set turn = 0
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position > p_position - 100 and l.position <= p_position and l.last_position >= p_position and l.turn = -1;
    end if;
end;
$$;
