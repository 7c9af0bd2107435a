-- For a caller that holds the cursor and moves it from p_from to p_to: what was settled before both can no more be told from what
-- this ended, what lies between is p_state ('skipped' or 'purged') or comes again, and the filter judges from there on.
create or replace function fastpubsub.remember_seek(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_from bigint,
    p_to bigint,
    p_state text,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_filter json;
begin
    select s.filter into v_filter from fastpubsub.subscriptions as s where s.subscription_key = p_subscription_key;
    delete from fastpubsub.filter_history as h
    where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.from_position > least(p_from, p_to);
    update fastpubsub.filter_history as h set sought_at = v_now
    where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.state = 'judged';
    if p_to > p_from then
        insert into fastpubsub.filter_history (topic_key, subscription_key, from_position, state, sought_at)
        values (p_topic_key, p_subscription_key, p_from + 1, p_state, v_now);
    end if;
    perform fastpubsub.remember_filter(p_topic_key, p_subscription_key, p_to + 1, v_filter);
end;
$$;
