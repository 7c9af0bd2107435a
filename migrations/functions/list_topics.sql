-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_part is a part of the id,
-- without case.
create or replace function fastpubsub.list_topics(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_part text default null,
    p_after text default null
)
returns table (id text, retention_seconds bigint, created_at timestamptz, schema json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, h.retention_seconds, t.created_at, h.schema
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where
        (p_ids is null or t.id = any(p_ids)) and (p_part is null or strpos(lower(t.id), lower(p_part)) > 0)
        and (p_after is null or t.id collate "C" > p_after)
    order by t.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;
