-- Moves waiting messages at or below the floor of the retries above it; no claim would take them there. Expected to find none; returns how
-- many it moved.
create or replace function fastpubsub.lift_stranded_retries(p_topic_key bigint, p_subscription_key bigint) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_lifted integer;
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if
        not exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position)
        )
    then
        return 0;
    end if;
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    update fastpubsub.retries as r set due_at = v_cursor.retry_due_at + interval '1 microsecond'
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position);
    get diagnostics v_lifted = row_count;
    return v_lifted;
end;
$$;
