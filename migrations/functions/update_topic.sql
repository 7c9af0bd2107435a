create or replace function fastpubsub.update_topic(p_id text, p_retention_seconds bigint) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.heads as h set retention_seconds = p_retention_seconds
    from fastpubsub.topics as t
    where t.id = p_id and h.topic_key = t.topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;
