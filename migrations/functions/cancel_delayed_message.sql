-- Deletes a delayed message that waits or is held. `cancelled` says whether there was one; otherwise `published` says whether it was
-- published a while ago.
create or replace function fastpubsub.cancel_delayed_message(
    p_topic_key bigint,
    p_delayed_key bigint,
    out cancelled boolean,
    out published boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    -- Waits for a transaction that is publishing it.
    delete from fastpubsub.delayed_messages as m where m.topic_key = p_topic_key and m.delayed_key = p_delayed_key;
    cancelled := found;
    published := not found and exists (
        select from fastpubsub.fired_messages as f where f.topic_key = p_topic_key and f.delayed_key = p_delayed_key
    );
end;
$$;
