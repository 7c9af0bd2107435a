-- For a caller that holds the cursor and ended deliveries of these turns of an ordered subscription. A turn of which nothing is leased any
-- more goes on: its first parked message waits, or the first one that was put aside is due, or the key is no longer busy (end_turns).
-- Returns whether there is something new to claim.
create or replace function fastpubsub.free_keys(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turns bigint [],
    p_now timestamptz,
    p_positions bigint [] default null,
    p_last_positions bigint [] default null
) returns boolean
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_ended record;
begin
    if 0 > all(p_turns) then
        return false;
    end if;
    select c.position, c.retry_due_at into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_ended := fastpubsub.end_turns(
        p_topic_key, p_subscription_key, p_turns, v_cursor.position, v_cursor.retry_due_at, p_positions, p_last_positions
    );
    if v_ended.next is not null then
        insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason, turn)
        select
            p_topic_key, p_subscription_key, greatest(p_now, v_cursor.retry_due_at + interval '1 microsecond'), u.position, 0,
            'put aside', u.turn
        from unnest(v_ended.next, v_ended.next_turns) as u (position, turn);
    end if;
    return v_ended.waits or v_ended.next is not null;
end;
$$;
