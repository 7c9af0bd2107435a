-- Gives a delayed message that waits or is held another time. `due_at` is the new one, null when the message does not wait; then
-- `published` says whether it was published a while ago.
create or replace function fastpubsub.move_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    p_deliver_at timestamptz,
    p_delay_seconds integer,
    p_now timestamptz default null,
    out due_at timestamptz,
    out published boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_due_at timestamptz;
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_due_at := fastpubsub.due_time(p_deliver_at, p_delay_seconds, v_now);
    update fastpubsub.delayed_messages as m
    set due_at = greatest(
        v_due_at,
        (
            select f.due_at + interval '1 microsecond' from fastpubsub.fired_messages as f
            where f.topic_key = p_topic_key
            order by f.due_at desc, f.delayed_key desc
            limit 1
        )
    )
    where m.topic_key = p_topic_key and m.delayed_key = p_delayed_key
    returning m.due_at into move_delayed_message.due_at;
    published := not found and exists (
        select from fastpubsub.fired_messages as f where f.topic_key = p_topic_key and f.delayed_key = p_delayed_key
    );
end;
$$;
