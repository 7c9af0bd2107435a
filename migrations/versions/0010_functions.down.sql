-- functions/copy_outbox.sql
drop function fastpubsub.copy_outbox;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;
-- p_start_from is 'earliest', 'latest' or 'time'; 'time' starts at the first message created at or after p_start_time.
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds and p_max_backlog of 0 are no limit, p_dead_letter_topic of '' no topic, and
-- p_fair_by of '' nothing, as null is.
create or replace function fastpubsub.create_subscription(
    p_id text,
    p_topic_id text,
    p_filter json,
    p_ack_deadline_seconds integer,
    p_max_delivery_attempts integer,
    p_backoff_min_seconds integer,
    p_backoff_max_seconds integer,
    p_start_from text default 'latest',
    p_start_time timestamptz default null,
    p_now timestamptz default null,
    p_push json default null,
    p_ordered boolean default false,
    p_max_in_flight integer default null,
    p_rate_limit double precision default null,
    p_dead_letter_topic text default null,
    p_expire_after_seconds integer default null,
    p_on_expired text default null,
    p_on_dead_letter text default null,
    p_max_backlog integer default null,
    p_on_full text default null,
    p_fair_by text default null,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_filter json := case when v_path is not null then p_filter end;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(p_ordered, p_on_dead_letter);
    perform fastpubsub.check_on_full(p_ordered, p_on_full, nullif(p_fair_by, ''));
    select n.* into topic_key, subscription_key, created_at
    from fastpubsub.name_subscription(p_id, p_topic_id, v_filter, p_now) as n;
    perform fastpubsub.require_dead_letter_topic(p_topic_id, p_dead_letter_topic);
    -- Waits for publishers, so that "latest" comes after every confirmed message.
    perform from fastpubsub.heads as h where h.topic_key = create_subscription.topic_key for no key update;
    perform fastpubsub.limit_backlog(create_subscription.topic_key, p_max_backlog);
    if p_start_from <> 'latest' then
        -- Trimming does not know the new cursor yet, and must not delete the messages just after it.
        perform fastpubsub.lock_job('trim_messages', true);
    end if;
    v_position := case p_start_from
        when 'earliest' then fastpubsub.position_before(create_subscription.topic_key, '-infinity')
        when 'time' then fastpubsub.position_before(create_subscription.topic_key, p_start_time)
        else fastpubsub.last_position(create_subscription.topic_key)
    end;
    insert into fastpubsub.cursors (
        topic_key, subscription_key, filter_path, ack_deadline_seconds,
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ordered, max_in_flight, rate_limit, dead_letter_topic,
        expire_after_seconds,
        on_expired, on_dead_letter, max_backlog, on_full, fair_by
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds, p_ordered,
        nullif(p_max_in_flight, 0), nullif(p_rate_limit, 0), nullif(p_dead_letter_topic, ''), nullif(p_expire_after_seconds, 0),
        coalesce(p_on_expired, 'drop'), coalesce(p_on_dead_letter, 'continue'), nullif(p_max_backlog, 0), coalesce(p_on_full, 'reject'),
        nullif(p_fair_by, '')
    );
    perform fastpubsub.begin_subscription(
        create_subscription.topic_key, create_subscription.subscription_key, v_position, v_filter, p_push, p_now
    );
end;
$$;

-- functions/draw_due_at.sql
drop function fastpubsub.draw_due_at;

-- functions/finish_outbox.sql
drop function fastpubsub.finish_outbox;

-- functions/forget_outbox_keys.sql
drop function fastpubsub.forget_outbox_keys;

-- functions/fork_subscription.sql
-- Creates a subscription like another of the same topic, before the oldest message that the other has not settled. p_settings has those
-- that differ, named as columns of `cursors`, and p_filter counts with p_change_filter. A pause and push stay with the other.
create or replace function fastpubsub.fork_subscription(
    p_id text,
    p_topic_id text,
    p_fork_of text,
    p_settings jsonb,
    p_change_filter boolean,
    p_filter json default null,
    p_push json default null,
    p_now timestamptz default null,
    out topic_key bigint,
    out subscription_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_original record;
    v_cursor fastpubsub.cursors;
    v_filter json := p_filter;
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    select n.* into topic_key, subscription_key, created_at from fastpubsub.name_subscription(p_id, p_topic_id, null, p_now) as n;
    v_original := fastpubsub.resolve_subscription(p_fork_of);
    if v_original.topic_key <> topic_key then
        raise exception using
            errcode = 'FP422', message = format('fork_of: subscription "%s" is not of the topic "%s"', p_fork_of, p_topic_id);
    end if;
    perform fastpubsub.limit_backlog(topic_key, (p_settings ->> 'max_backlog')::integer);
    -- Trimming does not know the new cursor yet, and as long as it waits, the other needs no lock.
    perform fastpubsub.lock_job('trim_messages', true);
    v_position := fastpubsub.unsettled_position(v_original.topic_key, v_original.subscription_key);
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = v_original.topic_key and c.subscription_key = v_original.subscription_key;
    -- Who deletes the other between two statements is no reason for a fork without its filter.
    if found and not p_change_filter then
        select s.filter into v_filter from fastpubsub.subscriptions as s where s.subscription_key = v_original.subscription_key;
    end if;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_fork_of);
    end if;
    v_cursor := jsonb_populate_record(v_cursor, p_settings);
    v_cursor.subscription_key := subscription_key;
    v_cursor.filter_path := fastpubsub.compile_filter(v_filter);
    v_cursor.paused_at := null;
    v_cursor.is_pushed := null;
    v_cursor.max_in_flight := nullif(v_cursor.max_in_flight, 0);
    v_cursor.rate_limit := nullif(v_cursor.rate_limit, 0);
    v_cursor.dead_letter_topic := nullif(v_cursor.dead_letter_topic, '');
    perform fastpubsub.require_dead_letter_topic(p_topic_id, v_cursor.dead_letter_topic);
    v_cursor.max_backlog := nullif(v_cursor.max_backlog, 0);
    v_cursor.fair_by := nullif(v_cursor.fair_by, '');
    perform fastpubsub.check_on_full(v_cursor.ordered, v_cursor.on_full, v_cursor.fair_by);
    v_cursor.expire_after_seconds := nullif(v_cursor.expire_after_seconds, 0);
    if v_cursor.backoff_max_seconds < v_cursor.backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(v_cursor.ordered, v_cursor.on_dead_letter);
    if v_cursor.filter_path is null then
        v_filter := null;
    end if;
    update fastpubsub.subscriptions as s set filter = v_filter where s.subscription_key = fork_subscription.subscription_key;
    insert into fastpubsub.cursors values ((v_cursor).*);
    perform fastpubsub.begin_subscription(topic_key, subscription_key, v_position, v_filter, p_push, p_now);
end;
$$;

-- functions/list_keys.sql
drop function fastpubsub.list_keys;

-- functions/list_rhythms.sql
drop function fastpubsub.list_rhythms;
-- Returns of topics that were silent for p_seconds, but published within the last day, and of the named subscriptions that were silent for
-- p_consumer_seconds, in how many minutes of that day something was published, or delivered; the time from the first to the last of them,
-- and the longest pause in it; and since when nothing was. At most p_limit topics, those that fell silent last.
-- p_by_topic: reads one topic after the other, as topics on several nodes need it; without, all in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_rhythms(
    p_topic_ids text [],
    p_subscription_ids text [],
    p_seconds integer default 600,
    p_limit integer default 100,
    p_consumer_seconds integer default 300,
    p_now timestamptz default null,
    p_by_topic boolean default true,
    p_topic_keys bigint [] default null
) returns table (
    topic_id text,
    subscription_id text,
    minutes bigint,
    lasted_seconds bigint,
    longest_pause_seconds bigint,
    silent_since timestamptz
)
language plpgsql volatile
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_from bigint := floor(extract(epoch from v_now))::bigint - 86400;
    v_topic record;
    v_created_at timestamptz;
    v_ids text [];
    v_keys bigint [];
    v_times timestamptz [];
begin
    if p_by_topic then
        for v_topic in
            select t.id, t.topic_key from fastpubsub.topics as t
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and (p_topic_keys is null or t.topic_key = any(p_topic_keys))
        loop
            select m.created_at into v_created_at from fastpubsub.messages as m
            where m.topic_key = v_topic.topic_key
            order by m.position desc limit 1;
            if v_created_at < v_now - make_interval(secs => p_seconds) and v_created_at > v_now - interval '1 day' then
                v_ids := v_ids || v_topic.id;
                v_keys := v_keys || v_topic.topic_key;
                v_times := v_times || v_created_at;
            end if;
        end loop;
    else
        select array_agg(n.id), array_agg(n.topic_key), array_agg(n.created_at) into v_ids, v_keys, v_times
        from (
            select t.id, t.topic_key, m.created_at
            from fastpubsub.topics as t
            cross join lateral (
                select m.created_at from fastpubsub.messages as m where m.topic_key = t.topic_key order by m.position desc limit 1
            ) as m
            where
                (p_topic_ids is null or t.id = any(p_topic_ids))
                and m.created_at < v_now - make_interval(secs => p_seconds) and m.created_at > v_now - interval '1 day'
            order by m.created_at desc
            limit p_limit
        ) as n;
    end if;
    return query
    with
    quiet as (
        select m.id, m.topic_key, m.created_at from unnest(v_ids, v_keys, v_times) as m (id, topic_key, created_at)
        order by m.created_at desc
        limit p_limit
    ),
    objects as (
        select t.id as topic_id, null::text as subscription_id, t.topic_key, 0::bigint as subscription_key, t.created_at as silent_since
        from quiet as t
        union all
        select t.id, s.id, s.topic_key, s.subscription_key, null
        from unnest(p_subscription_ids) as i (id)
        inner join fastpubsub.subscriptions as s on s.id = i.id
        inner join fastpubsub.topics as t on t.topic_key = s.topic_key
        where not exists (
            select from fastpubsub.history as h
            where
                h.topic_key = s.topic_key
                and (h.subscription_key, h.interval_seconds, h.at)
                >= (s.subscription_key, 5, floor(extract(epoch from v_now))::bigint - p_consumer_seconds)
                and (h.subscription_key, h.interval_seconds) <= (s.subscription_key, 5) and h.delivered > 0
            -- With sorting off, only the index by topic has this order.
            order by h.subscription_key, h.interval_seconds, h.at
            offset 0
        )
    )
    select
        o.topic_id, o.subscription_id, r.minutes, r.lasted_seconds, r.longest_pause_seconds, coalesce(o.silent_since, to_timestamp(r.ended))
    from objects as o
    cross join lateral (
        select
            count(*) as minutes, (max(a.minute) - min(a.minute)) * 60 as lasted_seconds,
            coalesce(max(a.pause) * 60, 0) as longest_pause_seconds, max(a.ended) as ended
        from (
            select m.minute, m.minute - lag(m.minute) over (order by m.minute) as pause, m.ended
            from (
                select h.at / 60 as minute, max(h.at + h.interval_seconds) as ended
                from (
                    select h.* from fastpubsub.history as h
                    where
                        h.topic_key = o.topic_key
                        and (h.subscription_key, h.interval_seconds, h.at) >= (o.subscription_key, 5, v_from)
                        and (h.subscription_key, h.interval_seconds) <= (o.subscription_key, 60)
                    order by h.subscription_key, h.interval_seconds, h.at
                    offset 0
                ) as h
                where h.at >= v_from and case when o.subscription_key = 0 then h.published else h.delivered end > 0
                group by h.at / 60
            ) as m
        ) as a
    ) as r
    where r.minutes > 0;
end;
$$;

-- functions/list_subscriptions_3.sql
-- Ordered by id, after the id p_after. p_ids, when not null, holds the only ids that the caller may see; p_topic_id, when not null, the
-- only topic; p_part is a part of the id, without case; p_has_dead_letters leaves out those without a dead letter;
-- p_by_topic looks for them in one topic after the other, as topics on several nodes need it; without, in one statement, with less work.
-- p_topic_keys, when not null, holds the only topics whose nodes answer.
create or replace function fastpubsub.list_subscriptions_3(
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
    fair_by text
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

-- functions/list_subscriptions_4.sql
drop function fastpubsub.list_subscriptions_4;

-- functions/look_at_topics.sql
drop function fastpubsub.look_at_topics;

-- functions/publish_outbox.sql
drop function fastpubsub.publish_outbox;

-- functions/requeue_messages.sql
-- Requeues deliveries that ended without an ack, in runs from p_positions to p_last_positions; the caller holds the cursor and has deleted
-- the leases. A message with attempts left waits for p_delay_seconds (null: the backoff); others, and those with p_reasons, die. What has
-- ended them is p_cause, and more of it p_causes. Returns how many died. In an ordered subscription, with p_turns, a message that waits
-- takes those with it that are leased after it in its turn: they come again after it, and their attempt does not count.
-- So does one that dies and holds its key: it is parked without an end. What has failed is written down, with the
-- consumers that had it.
create or replace function fastpubsub.requeue_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_last_positions bigint [],
    p_attempts integer [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_cause text,
    p_now timestamptz,
    p_causes text [] default null,
    p_turns bigint [] default null,
    p_consumer_ids text [] default null
) returns integer
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_died integer;
    v_replaced integer;
    v_dead bigint [];
    v_position bigint;
    v_positions bigint [];
    v_attempts integer [];
    v_reasons text [];
    v_causes text [];
    v_turns bigint [];
    v_due_at timestamptz [];
    v_dead_turns bigint [];
    v_consumer_ids text [];
begin
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select
        array_agg(p), array_agg(r.attempts), array_agg(r.reason), array_agg(': ' || r.cause),
        array_agg(r.turn), array_agg(r.consumer_id),
        array_agg(
            greatest(
                p_now + make_interval(secs => coalesce(
                    r.delay_seconds,
                    least(v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(r.attempts, 1) - 1, 40))
                )),
                v_cursor.retry_due_at + interval '1 microsecond'
            )
        )
    into v_positions, v_attempts, v_reasons, v_causes, v_turns, v_consumer_ids, v_due_at
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons, p_causes, p_turns, p_consumer_ids)
        as r (position, last_position, attempts, delay_seconds, reason, cause, turn, consumer_id)
    cross join lateral generate_series(r.position, r.last_position) as p;

    if p_cause not in ('returned', 'expired', 'full') then
        insert into fastpubsub.failures (
            topic_key, subscription_key, position, failed_at, attempt, cause, reason, consumer_id
        )
        select
            p_topic_key, p_subscription_key, u.position, p_now, u.attempts, p_cause, coalesce(u.reason, substr(u.cause, 3)),
            u.consumer_id
        from unnest(v_positions, v_attempts, v_reasons, v_causes, v_consumer_ids) as u (position, attempts, reason, cause, consumer_id)
        order by u.position;
        for v_position in
            select u.position from unnest(v_positions, v_attempts) as u (position, attempts) where u.attempts % 20 = 0
        loop
            perform fastpubsub.forget_old_failures(p_topic_key, p_subscription_key, v_position);
        end loop;
    end if;
    if 0 >= any(v_turns) then
        v_turns := fastpubsub.name_turns(p_topic_key, p_subscription_key, v_positions, v_turns, v_cursor.position);
    end if;
    if array_remove(v_turns, null) <> '{}' then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        select p_topic_key, p_subscription_key, u.turn, u.position, u.due_at, u.attempts, concat(p_cause, u.cause)
        from unnest(v_positions, v_attempts, v_due_at, v_reasons, v_causes, v_turns)
            as u (position, attempts, due_at, reason, cause, turn)
        where u.attempts < v_settings.max_delivery_attempts and u.reason is null and u.turn is not null;
    end if;
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts, reason)
    select p_topic_key, p_subscription_key, u.due_at, u.position, u.attempts, concat(p_cause, u.cause)
    from unnest(v_positions, v_attempts, v_due_at, v_reasons, v_causes, v_turns)
        as u (position, attempts, due_at, reason, cause, turn)
    where u.attempts < v_settings.max_delivery_attempts and u.reason is null and u.turn is null
    order by u.position;
    select array_agg(u.position), array_agg(case when v_settings.on_dead_letter = 'hold' then u.turn end) into v_dead, v_dead_turns
    from unnest(v_positions, v_attempts, v_reasons, v_turns) as u (position, attempts, reason, turn)
    where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null;
    if v_settings.on_dead_letter = 'hold' then
        insert into fastpubsub.parked (topic_key, subscription_key, turn, position, due_at, attempts, reason)
        select p_topic_key, p_subscription_key, u.turn, u.position, 'infinity', 0, 'put aside'
        from unnest(v_dead, v_dead_turns) as u (position, turn)
        where u.turn is not null;
    end if;
    if v_settings.ordered then
        perform fastpubsub.park_after(p_topic_key, p_subscription_key, v_turns, p_now);
    end if;
    if v_dead is null then
        if v_settings.ordered then
            perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_turns, p_now);
        end if;
        return 0;
    end if;
    -- After a seek a message can die again: that replaces its older dead letter, which counts as purged.
    select count(*) into v_replaced
    from unnest(v_dead) as p (position)
    cross join lateral (
        select from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p.position
        limit 1
    ) as d;
    insert into fastpubsub.dead_letters as d (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes, ordering_key, turn
    )
    select
        p_topic_key, p_subscription_key, u.position, coalesce(m.created_at, v.created_at), p_now, u.attempts,
        coalesce(
            u.reason,
            format('%s on delivery attempt %s of %s%s', p_cause, u.attempts, v_settings.max_delivery_attempts, u.cause)
        ),
        coalesce(m.payload, v.payload), coalesce(m.attributes, v.attributes), coalesce(m.ordering_key, v.ordering_key),
        case when v_settings.on_dead_letter = 'hold' then u.turn end
    from (
        select u.position, u.attempts, u.reason, u.cause, u.turn
        from unnest(v_positions, v_attempts, v_reasons, v_causes, v_turns) as u (position, attempts, reason, cause, turn)
        where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null
        order by u.position
    ) as u
    left join lateral (
        select m.created_at, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes, v.ordering_key from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
        limit 1
    ) as v on true
    on conflict (topic_key, subscription_key, position) do update set
        died_at = excluded.died_at, attempts = excluded.attempts, reason = excluded.reason, turn = excluded.turn;
    get diagnostics v_died = row_count;
    if v_settings.dead_letter_topic is not null then
        perform fastpubsub.publish_dead_letters(p_topic_key, p_subscription_key, v_dead, v_settings.dead_letter_topic);
    end if;
    foreach v_position in array v_dead loop
        delete from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = v_position;
        if found or v_replaced > 0 then
            perform fastpubsub.forget_old_failures(p_topic_key, p_subscription_key, v_position);
        end if;
    end loop;
    if v_settings.ordered then
        perform fastpubsub.free_keys(p_topic_key, p_subscription_key, v_turns, p_now);
    end if;
    if v_replaced > 0 then
        perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + v_replaced);
    end if;
    return v_died;
end;
$$;

-- functions/update_subscription_2.sql
drop function fastpubsub.update_subscription_2;
-- A null parameter keeps the present value; p_change_filter tells a filter that is removed from one that stays. The new filter judges the
-- messages ahead; messages that the old one skipped do not come back. p_push is that of set_push, whose answer is `is_new_secret`;
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds or p_max_backlog of 0 removes the limit, p_dead_letter_topic of '' that topic.
-- With p_expire_after_seconds the time until it expires begins anew. p_on_dead_letter counts for dead letters from now on.
create or replace function fastpubsub.update_subscription_2(
    p_id text,
    p_change_filter boolean default false,
    p_filter json default null,
    p_ack_deadline_seconds integer default null,
    p_max_delivery_attempts integer default null,
    p_backoff_min_seconds integer default null,
    p_backoff_max_seconds integer default null,
    p_change_push boolean default false,
    p_push json default null,
    p_max_in_flight integer default null,
    p_rate_limit double precision default null,
    p_dead_letter_topic text default null,
    p_expire_after_seconds integer default null,
    p_on_expired text default null,
    p_on_dead_letter text default null,
    p_now timestamptz default null,
    p_max_backlog integer default null,
    p_on_full text default null,
    out is_new_secret boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_keys record := fastpubsub.resolve_subscription(p_id);
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.limit_backlog(v_keys.topic_key, p_max_backlog);
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = v_keys.topic_key and c.subscription_key = v_keys.subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    if coalesce(p_backoff_max_seconds, v_cursor.backoff_max_seconds) < coalesce(p_backoff_min_seconds, v_cursor.backoff_min_seconds) then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    perform fastpubsub.check_on_dead_letter(v_cursor.ordered, p_on_dead_letter);
    perform fastpubsub.check_on_full(v_cursor.ordered, p_on_full, v_cursor.fair_by);
    if p_dead_letter_topic is not null then
        perform fastpubsub.require_dead_letter_topic(
            (select t.id from fastpubsub.topics as t where t.topic_key = v_cursor.topic_key), p_dead_letter_topic
        );
    end if;
    update fastpubsub.cursors as c set
        filter_path = case when p_change_filter then v_path else c.filter_path end,
        ack_deadline_seconds = coalesce(p_ack_deadline_seconds, c.ack_deadline_seconds),
        max_delivery_attempts = coalesce(p_max_delivery_attempts, c.max_delivery_attempts),
        backoff_min_seconds = coalesce(p_backoff_min_seconds, c.backoff_min_seconds),
        backoff_max_seconds = coalesce(p_backoff_max_seconds, c.backoff_max_seconds),
        max_in_flight = nullif(coalesce(p_max_in_flight, c.max_in_flight), 0),
        rate_limit = nullif(coalesce(p_rate_limit, c.rate_limit), 0),
        dead_letter_topic = nullif(coalesce(p_dead_letter_topic, c.dead_letter_topic), ''),
        expire_after_seconds = nullif(coalesce(p_expire_after_seconds, c.expire_after_seconds), 0),
        on_expired = coalesce(p_on_expired, c.on_expired),
        on_dead_letter = coalesce(p_on_dead_letter, c.on_dead_letter),
        max_backlog = nullif(coalesce(p_max_backlog, c.max_backlog), 0),
        on_full = coalesce(p_on_full, c.on_full)
    where c.topic_key = v_cursor.topic_key and c.subscription_key = v_cursor.subscription_key;
    if p_change_filter then
        update fastpubsub.subscriptions as s set filter = case when v_path is not null then p_filter end
        where s.subscription_key = v_cursor.subscription_key;
        perform fastpubsub.remember_filter(
            v_cursor.topic_key, v_cursor.subscription_key,
            fastpubsub.cursor_position(v_cursor.topic_key, v_cursor.subscription_key) + 1,
            case when v_path is not null then p_filter end
        );
    end if;
    if p_expire_after_seconds = 0 then
        delete from fastpubsub.subscription_uses as u
        where u.topic_key = v_cursor.topic_key and u.subscription_key = v_cursor.subscription_key;
    elsif p_expire_after_seconds is not null then
        insert into fastpubsub.subscription_uses as u (topic_key, subscription_key, used_at)
        values (v_cursor.topic_key, v_cursor.subscription_key, coalesce(p_now, clock_timestamp()))
        on conflict (topic_key, subscription_key) do update set used_at = excluded.used_at;
    end if;
    is_new_secret := false;
    if p_change_push then
        is_new_secret := fastpubsub.set_push(v_cursor.topic_key, v_cursor.subscription_key, p_push);
    end if;
    perform fastpubsub.require_push_timeout(v_cursor.topic_key, v_cursor.subscription_key);
end;
$$;
