-- Newest first: those of an object, of a client, of an id or of a kind of objects by their keys, others by their times.
-- p_before_key is that of the last one of the page before.
create or replace function fastpubsub.list_changes(
    p_object text,
    p_object_id text,
    p_client_id text,
    p_after timestamptz,
    p_before timestamptz,
    p_before_key bigint,
    p_limit integer
) returns table (
    change_key bigint,
    changed_at timestamptz,
    client_id text,
    request_id text,
    action text,
    object text,
    object_id text,
    body json
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_before timestamptz := 'infinity';
begin
    if p_object is not null and p_object_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            (c.object, c.object_id) >= (p_object, p_object_id)
            and (c.object, c.object_id, c.change_key) < (p_object, p_object_id, coalesce(p_before_key, 9223372036854775807))
            and (p_client_id is null or c.client_id = p_client_id)
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        -- With sorting off, only the index by object has this order.
        order by c.object desc, c.object_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_client_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.client_id >= p_client_id
            and (c.client_id, c.change_key) < (p_client_id, coalesce(p_before_key, 9223372036854775807))
            and (p_object is null or c.object = p_object)
            and (p_object_id is null or c.object_id = p_object_id)
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.client_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_object_id is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.object_id >= p_object_id
            and (c.object_id, c.change_key) < (p_object_id, coalesce(p_before_key, 9223372036854775807))
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.object_id desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_object is not null then
        return query
        select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
        from fastpubsub.changes as c
        where
            c.object >= p_object
            and (c.object, c.change_key) < (p_object, coalesce(p_before_key, 9223372036854775807))
            and (p_after is null or c.changed_at >= p_after)
            and (p_before is null or c.changed_at < p_before)
        order by c.object desc, c.change_key desc
        limit p_limit;
        return;
    elsif p_before_key is not null then
        select c.changed_at into v_before from fastpubsub.changes as c where c.change_key = p_before_key;
    end if;
    return query
    select c.change_key, c.changed_at, c.client_id, c.request_id, c.action, c.object, c.object_id, c.body
    from fastpubsub.changes as c
    where
        (c.changed_at, c.change_key) < (v_before, coalesce(p_before_key, 9223372036854775807))
        and c.changed_at >= coalesce(p_after, '-infinity')
        and c.changed_at < coalesce(p_before, 'infinity')
    order by c.changed_at desc, c.change_key desc
    limit p_limit;
end;
$$;
