-- Counts what is refused, up to p_limit a topic: of the named topics, or else of up to p_topics topics that have any.
-- Writes nothing.
create or replace function fastpubsub.count_refused_messages(
    p_limit integer,
    p_topics integer,
    p_topic_ids text [] default null,
    out topic_id text,
    out refused bigint
) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_topic_key bigint := 0;
    v_topic_keys bigint [] := '{}';
begin
    if p_topic_ids is not null then
        v_topic_keys := array(select t.topic_key from fastpubsub.topics as t where t.id = any(p_topic_ids));
    else
        for i in 1..p_topics loop
            select r.topic_key into v_topic_key from fastpubsub.refused_messages as r
            where r.topic_key > v_topic_key
            order by r.topic_key
            limit 1;
            exit when not found;
            v_topic_keys := v_topic_keys || v_topic_key;
        end loop;
    end if;
    foreach v_topic_key in array v_topic_keys loop
        select count(*) into refused
        from (
            select from fastpubsub.refused_messages as r where r.topic_key = v_topic_key order by r.refused_key limit p_limit
        ) as r;
        select t.id into topic_id from fastpubsub.topics as t where t.topic_key = v_topic_key;
        if found and refused > 0 then
            return next;
        end if;
    end loop;
end;
$$;
