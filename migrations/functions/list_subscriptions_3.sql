-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter.
create or replace function fastpubsub.list_subscriptions_3(
    p_offset bigint,
    p_limit integer,
    p_ids text[] default null,
    p_topic_id text default null,
    p_part text default null,
    p_after text default null,
    p_has_dead_letters boolean default false
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
    fair_by text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_with_dead_letters bigint [];
    v_keys record;
    v_names record;
begin
    if p_has_dead_letters then
        for v_keys in select s.topic_key, s.subscription_key from fastpubsub.subscriptions as s loop
            perform 1 from fastpubsub.dead_letters as d
            where d.topic_key = v_keys.topic_key and d.subscription_key = v_keys.subscription_key
            limit 1;
            if found then
                v_with_dead_letters := v_with_dead_letters || v_keys.subscription_key;
            end if;
        end loop;
    end if;
    select
        array_agg(n.topic_key) as topic_keys, array_agg(n.subscription_key) as subscription_keys, array_agg(n.id) as ids,
        array_agg(n.topic_id) as topic_ids, array_agg(n.filter) as filters, array_agg(n.created_at) as times,
        array_agg(n.push) as pushes, array_agg(n.used_at) as used_at
    into v_names
    from (
        select s.topic_key, s.subscription_key, s.id, t.id as topic_id, s.filter, s.created_at, e.settings as push, u.used_at
        from fastpubsub.subscriptions as s
        inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        left join fastpubsub.endpoints as e on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
        left join fastpubsub.subscription_uses as u on s.topic_key = u.topic_key and s.subscription_key = u.subscription_key
        where
            (p_ids is null or s.id = any(p_ids)) and (p_topic_id is null or t.id = p_topic_id)
            and (p_part is null or strpos(lower(s.id), lower(p_part)) > 0)
            and (p_after is null or s.id collate "C" > p_after)
            and (not p_has_dead_letters or s.subscription_key = any(v_with_dead_letters))
        order by s.id collate "C"
        offset p_offset
        limit p_limit
    ) as n;
    return query
    select
        n.id, n.topic_id, n.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, n.created_at, c.paused_at, n.push, c.ordered, c.max_in_flight,
        c.rate_limit, c.dead_letter_topic, c.expire_after_seconds,
        case
            when c.expire_after_seconds is not null and c.paused_at is null and c.is_pushed is not true
                then fastpubsub.expires_at(n.used_at, c.expire_after_seconds)
        end,
        c.on_expired, c.on_dead_letter, c.max_backlog, c.on_full, c.fair_by
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
