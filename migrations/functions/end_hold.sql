-- For a caller that holds the cursor: a dead letter does not hold its key any more. p_turn is what the dead letter
-- says of it. With p_due_at its message waits until then, in its place; else the key goes on. Returns whether it held
-- the key.
create or replace function fastpubsub.end_hold(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_turn bigint,
    p_due_at timestamptz,
    p_now timestamptz
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity' and r.position = p_position;
    if found then
        if p_due_at is null then
            perform fastpubsub.free_keys(p_topic_key, p_subscription_key, array[p_turn], p_now);
        else
            insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
            values (p_topic_key, p_subscription_key, p_due_at, p_position, 0, 'reprocessed', p_turn);
        end if;
        return true;
    end if;
    -- Behind a message of its turn that is leased or waits, and whose end frees the key.
    delete from fastpubsub.parked as p
    where
        p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn and p.position = p_position
        and p.due_at = 'infinity';
    if not found then
        return false;
    end if;
    if p_due_at is not null then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        values (p_topic_key, p_subscription_key, p_turn, p_position, p_due_at, 0, 'reprocessed');
    end if;
    return true;
end;
$$;
