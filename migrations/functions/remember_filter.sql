-- For a caller that holds the cursor: from p_from_position on, this filter judges. The oldest stretches are forgotten beyond 100.
create or replace function fastpubsub.remember_filter(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_from_position bigint,
    p_filter json
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_oldest bigint [];
begin
    insert into fastpubsub.filter_history (topic_key, subscription_key, from_position, state, filter)
    values (p_topic_key, p_subscription_key, p_from_position, 'judged', p_filter)
    on conflict (topic_key, subscription_key, from_position) do update
    set state = excluded.state, filter = excluded.filter, sought_at = null;
    select array_agg(h.from_position order by h.from_position) into v_oldest
    from fastpubsub.filter_history as h
    where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key;
    for v_place in 2..cardinality(v_oldest) - 99 loop
        delete from fastpubsub.filter_history as h
        where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.from_position = v_oldest[v_place];
        update fastpubsub.filter_history as h set state = 'forgotten', filter = null
        where h.topic_key = p_topic_key and h.subscription_key = p_subscription_key and h.from_position = v_oldest[1];
    end loop;
end;
$$;
