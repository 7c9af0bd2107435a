-- What servers of the last release call. They take the columns of a result by their place, so a function that has other columns by now
-- has a new name, and this one the old name and columns.

-- A topic with a schema waits for a server that checks payloads: FP428. Rows of topic 0 are none that were dropped.
create or replace function fastpubsub.relay_messages(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_now timestamptz default null,
    out topic_id text,
    out moved integer,
    out dropped integer
)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select r.topic_id, r.moved, case when p_topic_key = 0 then 0 else r.dropped end
    from fastpubsub.relay_messages_2(p_topic_key, p_transactions, p_ordinals, 0, null, p_now) as r;
$$;
