-- Looks at messages without a lease or a lock: all of a topic (p_state 'all'), or those of a subscription that are 'ahead', 'leased',
-- 'waiting' or 'dead', from p_position or p_time on. They come by position; the waiting ones by the time at which they are due, which is
-- their p_time. Backwards, which only 'all' can, come those before, the newest first. The number of rows looked at, the time, and the bytes
-- of what is returned (the first always comes) are bounded. is_found says what p_search_in, p_name and p_values find. `at` is a deadline, a
-- due time or a time of death, `note` a consumer or a reason, `since` when a message was leased, `failures` what failures_of returns.
--
-- The last row has no created_at. It says how many messages were looked at, and where this ended: at the position, and the due time, that
-- comes next, null at the end. `other_side` is where 'all' began, null when nothing is on its other side.
create or replace function fastpubsub.browse_messages_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_state text,
    p_position bigint,
    p_time timestamptz,
    p_backwards boolean,
    p_limit integer,
    p_max_bytes bigint,
    p_with_content boolean,
    p_search_in text default null,
    p_name text default null,
    p_values text [] default null,
    p_rows integer default 10000,
    p_milliseconds integer default 250
) returns table (
    message_position bigint,
    created_at timestamptz,
    attempts integer,
    at timestamptz,
    note text,
    since timestamptz,
    payload json,
    attributes jsonb,
    looked_at integer,
    other_side bigint,
    ordering_key text,
    failures json,
    expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_from bigint := case
        when p_time is null or p_state = 'waiting' then p_position else fastpubsub.position_before(p_topic_key, p_time) + 1
    end;
    v_cursor record;
    v_path jsonpath;
    v_messages refcursor;
    v_message record;
    v_found integer := 0;
    v_bytes bigint := 0;
begin
    if p_subscription_key is null then
        perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    else
        select c.position, c.retry_due_at, c.retry_position, u.filter_path into v_cursor
        from fastpubsub.claims as c
        inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
        where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
        order by c.sequence desc limit 1;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = 'there is no such topic or subscription';
    end if;

    if p_state = 'leased' then
        open v_messages for
        select p.position, m.created_at, l.attempts, l.expires_at as at, l.consumer_id as note, l.leased_at as since, m.payload, m.attributes, m.ordering_key, m.expires_at
        from fastpubsub.leases as l
        cross join lateral generate_series(greatest(l.position, v_from), l.last_position) as p (position)
        cross join lateral (
            select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            union all
            select v.created_at, v.payload, v.attributes, v.ordering_key, null from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p.position
            limit 1
        ) as m
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position > coalesce(v_from, 0) - 100
        order by l.position, p.position;
    elsif p_state = 'waiting' then
        open v_messages for
        select r.position, m.created_at, r.attempts, r.due_at as at, r.reason as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
        from fastpubsub.retries as r
        cross join lateral (
            select m.created_at, m.payload, m.attributes, m.ordering_key, m.expires_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = r.position
            union all
            select v.created_at, v.payload, v.attributes, v.ordering_key, null from fastpubsub.revived as v
            where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
            limit 1
        ) as m
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and r.reason <> 'put aside'
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and (r.due_at, r.position) >= (coalesce(p_time, '-infinity'), coalesce(p_position, 0))
        order by r.due_at, r.position;
    elsif p_state = 'dead' then
        open v_messages for
        select d.position, d.created_at, d.attempts, d.died_at as at, d.reason as note, null::timestamptz as since, d.payload, d.attributes, d.ordering_key, null::timestamptz as expires_at
        from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position >= coalesce(v_from, 0)
        order by d.position;
    else
        if p_state = 'ahead' then
            v_path := v_cursor.filter_path;
            v_from := greatest(v_from, v_cursor.position + 1);
        else
            -- What was trimmed may still lie before the first message, for vacuum.
            select greatest(
                least(case when p_backwards then v_from else coalesce(v_from, 0) end, l.last + 1),
                fastpubsub.first_position(p_topic_key, l.last)
            ) into v_from
            from fastpubsub.last_position(p_topic_key) as l (last);
            select v_from into browse_messages_2.other_side from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = case when p_backwards then v_from else v_from - 1 end;
        end if;
        if p_backwards then
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
            from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position < v_from
            order by m.position desc;
        else
            open v_messages for
            select m.position, m.created_at, 0 as attempts, null::timestamptz as at, null::text as note, null::timestamptz as since, m.payload, m.attributes, m.ordering_key, m.expires_at
            from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position >= v_from
            order by m.position;
        end if;
    end if;

    looked_at := 0;
    loop
        fetch v_messages into v_message;
        exit when not found or v_found = p_limit or looked_at = p_rows or (looked_at > 0 and clock_timestamp() >= v_until);
        v_bytes := v_bytes + pg_column_size(v_message.payload) + coalesce(pg_column_size(v_message.attributes), 0);
        exit when v_found > 0 and v_bytes > p_max_bytes and p_with_content;
        looked_at := looked_at + 1;
        if
            (v_path is null and p_search_in is null)
            or fastpubsub.is_found(
                v_message.payload, v_message.attributes, v_path, p_search_in, p_name, p_values, v_message.ordering_key
            )
        then
            v_found := v_found + 1;
            message_position := v_message.position;
            created_at := v_message.created_at;
            attempts := v_message.attempts;
            at := v_message.at;
            note := v_message.note;
            since := v_message.since;
            payload := case when p_with_content then v_message.payload end;
            attributes := case when p_with_content then v_message.attributes end;
            ordering_key := case when p_with_content then v_message.ordering_key end;
            if p_subscription_key is not null then
                failures := fastpubsub.failures_of(p_topic_key, p_subscription_key, v_message.position);
            end if;
            expires_at := v_message.expires_at;
            return next;
        end if;
    end loop;
    message_position := v_message.position;
    at := v_message.at;
    created_at := null;
    payload := null;
    attributes := null;
    ordering_key := null;
    failures := null;
    expires_at := null;
    return next;
end;
$$;
