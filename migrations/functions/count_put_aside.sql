-- Counts the messages that an ordered subscription has put aside: the cursor has passed them, and an earlier message of their key is leased
-- or waits. At most p_look of them are looked at; a filter is asked for each.
create or replace function fastpubsub.count_put_aside(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look bigint,
    out messages bigint,
    out is_estimated boolean,
    out oldest_created_at timestamptz
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_path jsonpath;
    v_looked bigint;
    v_oldest bigint;
begin
    select c.filter_path into v_path from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select count(*), count(*) filter (where a.passes), min(a.position) filter (where a.passes)
    into v_looked, count_put_aside.messages, v_oldest
    from (
        select
            a.position,
            v_path is null
            or (select f.positions is not null from fastpubsub.matching_positions(p_topic_key, a.position - 1, a.position, v_path, 1) as f)
            as passes
        from fastpubsub.put_aside(p_topic_key, p_subscription_key, p_look) as a (position)
    ) as a;
    is_estimated := v_looked >= p_look;
    select m.created_at into count_put_aside.oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_oldest;
end;
$$;
