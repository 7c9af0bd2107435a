-- Writes who waits at this process: for each subscription p_counts consumers, one after the other in the other arrays, and for how many
-- seconds they have done so. A subscription with none is one that had some the last time. What other processes wrote stays until it is old.
create or replace function fastpubsub.record_consumers(
    p_process bigint,
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_counts integer [],
    p_consumer_ids text [],
    p_streams boolean [],
    p_seconds double precision [],
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_since timestamptz [] := array(
        select v_now - make_interval(secs => u.seconds) from unnest(p_seconds) with ordinality as u (seconds, ordinal) order by u.ordinal
    );
    v_end integer := 0;
begin
    perform fastpubsub.begin_call(false);
    for i in 1..cardinality(p_counts) loop
        v_end := v_end + p_counts[i];
        if p_counts[i] = 0 then
            delete from fastpubsub.consumers as c
            where c.topic_key = p_topic_keys[i] and c.subscription_key = p_subscription_keys[i] and c.process = p_process;
        else
            insert into fastpubsub.consumers (topic_key, subscription_key, process, seen_at, consumer_ids, streams, since)
            values (
                p_topic_keys[i], p_subscription_keys[i], p_process, v_now, p_consumer_ids[v_end - p_counts[i] + 1:v_end],
                p_streams[v_end - p_counts[i] + 1:v_end], v_since[v_end - p_counts[i] + 1:v_end]
            )
            on conflict (topic_key, subscription_key, process) do update set
                seen_at = excluded.seen_at,
                consumer_ids = excluded.consumer_ids,
                streams = excluded.streams,
                since = excluded.since;
        end if;
    end loop;
end;
$$;
