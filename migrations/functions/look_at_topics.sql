-- Returns of several topics on the node of p_topic_key, which is one of them, the position of the newest message and when it was
-- published, and what loads_of_topic says of each subscription that has something to do; nulls where none has.
create or replace function fastpubsub.look_at_topics(p_topic_key bigint, p_topic_keys bigint [], p_retention_seconds bigint)
returns table (
    topic_key bigint,
    last_position bigint,
    last_created_at timestamptz,
    subscription_key bigint,
    is_filtered boolean,
    behind bigint,
    leased bigint,
    waiting bigint,
    dead bigint,
    next_created_at timestamptz,
    leased_created_at timestamptz,
    waiting_created_at timestamptz,
    died_at timestamptz,
    retention_seconds bigint,
    paused_at timestamptz,
    first_expires_at timestamptz,
    max_in_flight integer,
    at_rate_limit double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_last record;
begin
    foreach v_topic_key in array p_topic_keys loop
        select m.position, m.created_at into v_last from fastpubsub.messages as m
        where m.topic_key = v_topic_key
        order by m.position desc limit 1;
        return query
        select v_topic_key, coalesce(v_last.position, 0), v_last.created_at, l.*
        from (values (true)) as o (is_there)
        left join fastpubsub.loads_of_topic(v_topic_key, p_retention_seconds) as l on o.is_there;
    end loop;
end;
$$;
