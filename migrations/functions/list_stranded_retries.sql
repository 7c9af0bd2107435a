-- Lists the subscriptions with a waiting message at or below the floor of the retries, where no claim would find it. Expected: none.
-- p_topic_keys: of these topics only.
create or replace function fastpubsub.list_stranded_retries(p_topic_keys bigint [] default null)
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_subscription record;
    v_cursor fastpubsub.claims;
begin
    for v_subscription in
        select s.topic_key, s.subscription_key, s.id from fastpubsub.subscriptions as s
        where (p_topic_keys is null or s.topic_key = any(p_topic_keys))
    loop
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        if
            exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
                    and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position)
            )
        then
            topic_key := v_subscription.topic_key;
            subscription_key := v_subscription.subscription_key;
            subscription_id := v_subscription.id;
            return next;
        end if;
    end loop;
end;
$$;
