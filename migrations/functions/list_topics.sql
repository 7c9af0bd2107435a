-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_part is a part of the id,
-- without case; p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_topics(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_part text default null,
    p_after text default null,
    p_topic_keys bigint [] default null
)
returns table (id text, retention_seconds bigint, created_at timestamptz, schema json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_keys bigint [];
    v_ids text [];
    v_times timestamptz [];
begin
    select array_agg(n.topic_key), array_agg(n.id), array_agg(n.created_at) into v_topic_keys, v_ids, v_times
    from (
        select t.topic_key, t.id, t.created_at from fastpubsub.topics as t
        where
            (p_ids is null or t.id = any(p_ids)) and (p_part is null or strpos(lower(t.id), lower(p_part)) > 0)
            and (p_after is null or t.id collate "C" > p_after)
            and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
        order by t.id collate "C"
        offset p_offset
        limit p_limit
    ) as n;
    -- Or where topics are on several nodes, all of them were asked.
    if v_topic_keys is null then
        return;
    end if;
    return query
    select n.id, h.retention_seconds, n.created_at, h.schema
    from unnest(v_topic_keys, v_ids, v_times) as n (topic_key, id, created_at)
    inner join fastpubsub.heads as h on n.topic_key = h.topic_key
    -- Where topics are on several nodes, only those of these topics are asked.
    where h.topic_key = any(v_topic_keys)
    order by n.id collate "C";
end;
$$;
