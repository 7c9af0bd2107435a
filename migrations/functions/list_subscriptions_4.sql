-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter;
-- p_by_topic looks for them in one topic after the other, as topics on several nodes need it; without, in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_subscriptions_4(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_topic_id text default null,
    p_part text default null,
    p_after text default null,
    p_has_dead_letters boolean default false,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
)
returns table (
    id text,
    topic_id text,
    filter json,
    ack_deadline_seconds integer,
    max_delivery_attempts integer,
    backoff_min_seconds integer,
    backoff_max_seconds integer,
    created_at timestamptz,
    paused_at timestamptz,
    push json,
    ordered boolean,
    max_in_flight integer,
    rate_limit double precision,
    dead_letter_topic text,
    expire_after_seconds integer,
    expires_at timestamptz,
    on_expired text,
    on_dead_letter text,
    max_backlog integer,
    on_full text,
    fair_by text,
    backoff_jitter double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_topic_keys bigint [];
    v_keys bigint [];
    v_found bigint [] := '{}';
    v_one record;
    v_names record;
begin
    select array_agg(n.topic_key), array_agg(n.subscription_key) into v_topic_keys, v_keys
    from (
        select s.topic_key, s.subscription_key
        from fastpubsub.subscriptions as s
        inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        where
            (p_ids is null or s.id = any(p_ids)) and (p_topic_id is null or t.id = p_topic_id)
            and (p_part is null or strpos(lower(s.id), lower(p_part)) > 0)
            and (p_after is null or s.id collate "C" > p_after)
            and (p_topic_keys is null or s.topic_key = any(p_topic_keys))
        order by s.id collate "C"
        offset case when p_has_dead_letters then 0 else p_offset end
        limit case when not p_has_dead_letters then p_limit end
    ) as n;
    if p_has_dead_letters and p_by_topic then
        for v_one in select n.* from unnest(v_topic_keys, v_keys) as n (topic_key, subscription_key) loop
            exit when cardinality(v_found) >= p_offset + p_limit;
            perform 1 from fastpubsub.dead_letters as d
            where d.topic_key = v_one.topic_key and d.subscription_key = v_one.subscription_key
            limit 1;
            if found then
                v_found := v_found || v_one.subscription_key;
            end if;
        end loop;
        v_keys := array(select n.key from unnest(v_found) with ordinality as n (key, place) where n.place > p_offset order by n.place);
    elsif p_has_dead_letters then
        select array_agg(n.subscription_key) into v_keys
        from (
            select n.subscription_key from unnest(v_topic_keys, v_keys) with ordinality as n (topic_key, subscription_key, place)
            where exists (
                select from fastpubsub.dead_letters as d
                where d.topic_key = n.topic_key and d.subscription_key = n.subscription_key
                -- Or it would read all dead letters, to join them.
                offset 0
            )
            order by n.place
            offset p_offset
            limit p_limit
        ) as n;
    end if;
    select
        array_agg(s.topic_key) as topic_keys, array_agg(s.subscription_key) as subscription_keys, array_agg(s.id) as ids,
        array_agg(t.id) as topic_ids, array_agg(s.filter) as filters, array_agg(s.created_at) as times,
        array_agg(e.settings) as pushes, array_agg(u.used_at) as used_at
    into v_names
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    left join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
    left join fastpubsub.subscription_uses as u on s.topic_key = u.topic_key and s.subscription_key = u.subscription_key
    where s.subscription_key = any(v_keys);
    -- Or where topics are on several nodes, all of them were asked.
    if v_names.ids is null then
        return;
    end if;
    return query
    select
        n.id, n.topic_id, n.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, n.created_at, c.paused_at, n.push, c.ordered, c.max_in_flight,
        c.rate_limit, c.dead_letter_topic, c.expire_after_seconds,
        case
            when c.expire_after_seconds is not null and c.paused_at is null and c.is_pushed is not true
                then fastpubsub.expires_at(n.used_at, c.expire_after_seconds)
        end,
        c.on_expired, c.on_dead_letter, c.max_backlog, c.on_full, c.fair_by, c.backoff_jitter
    from
        unnest(
            v_names.topic_keys, v_names.subscription_keys, v_names.ids, v_names.topic_ids, v_names.filters, v_names.times,
            v_names.pushes, v_names.used_at
        ) as n (topic_key, subscription_key, id, topic_id, filter, created_at, push, used_at)
    inner join fastpubsub.cursors as c on n.topic_key = c.topic_key and n.subscription_key = c.subscription_key
    -- Where topics are on several nodes, only those of these topics are asked.
    where c.topic_key = any(v_names.topic_keys)
    order by n.id collate "C";
end;
$$;
