-- functions/ack_messages.sql
-- Settles deliveries for good. The ids come in runs; per id: 1 settled, 0 gone, 2 stale (see take_leases).
create or replace function fastpubsub.ack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if true = any(v_taken.revived) then
        for i in 1..cardinality(v_taken.positions) loop
            if v_taken.revived[i] then
                delete from fastpubsub.revived as v
                where
                    v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                    and v.position >= v_taken.positions[i] and v.position <= v_taken.last_positions[i];
            end if;
        end loop;
    end if;
    return v_taken.outcomes;
end;
$$;

-- functions/begin_call.sql
-- First statement of every procedure that writes. Sessions cannot weaken it: the settings hold to the end of the transaction.
create or replace function fastpubsub.begin_call(p_durable boolean) returns void
language plpgsql as $$
begin
    -- A snapshot older than the lock would not see what the lock's last holder committed.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = '25000',
            message = 'fastpubsub needs transactions at read committed, not at ' || current_setting('transaction_isolation');
    end if;
    perform set_config('lock_timeout', coalesce(nullif(current_setting('fastpubsub.lock_timeout', true), ''), '2s'), true);
    if not p_durable then
        perform set_config('synchronous_commit', 'off', true);
    elsif current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end;
$$;

-- functions/check_attributes.sql
-- Refuses what the server refuses: attributes are up to 100 texts by name, names of 1 to 256 characters, texts of up to 1024.
create or replace function fastpubsub.check_attributes(p_attributes jsonb) returns void
language plpgsql stable as $$
declare
    v_count bigint;
    v_texts boolean;
    v_short boolean;
begin
    if jsonb_typeof(p_attributes) <> 'object' then
        raise exception using errcode = 'FP422', message = 'the attributes are not a JSON object';
    end if;
    select
        count(*),
        bool_and(jsonb_typeof(a.value) = 'string'),
        bool_and(length(a.key) between 1 and 256 and length(a.value #>> '{}') <= 1024)
    into v_count, v_texts, v_short
    from jsonb_each(p_attributes) as a;
    if not v_texts then
        raise exception using errcode = 'FP422', message = 'an attribute is not a text';
    elsif v_count > 100 then
        raise exception using errcode = 'FP422', message = 'there are more than 100 attributes';
    elsif not v_short then
        raise exception using
            errcode = 'FP422',
            message = 'an attribute is too long: names have 1 to 256 characters, values at most 1024';
    end if;
end;
$$;

-- functions/check_payload.sql
-- Refuses what the server refuses in fastpubsub/payloads.py, with the default depth of 64 and 10 MiB at most: what PostgreSQL, a filter or
-- a consumer could not read later. The cheap looks miss nothing; only what they suspect is looked at closely.
create or replace function fastpubsub.check_payload(p_payload json) returns void
language plpgsql stable as $$
declare
    v_text text := p_payload::text;
    v_outside text;
    v_problem text;
    v_deep boolean;
    v_number boolean;
begin
    v_deep := octet_length(v_text) - octet_length(translate(v_text, '{[', '')) > 64;
    v_number := v_text ~ '[eE][-+]?[0-9]{4}|[0-9.]{200}';
    if p_payload is null or json_typeof(p_payload) <> 'object' then
        v_problem := 'the payload is not a JSON object';
    elsif octet_length(v_text) > 10485760 then
        v_problem := 'the payload is larger than 10 MiB';
    elsif strpos(v_text, E'\\u0000') > 0 and strpos(replace(v_text, E'\\\\', ''), E'\\u0000') > 0 then
        v_problem := E'the payload has the escape \\u0000, which PostgreSQL cannot store; leave it out';
    elsif v_text ~ E'\\\\u[dD][89a-fA-F]' and not fastpubsub.is_jsonb(p_payload) then
        v_problem := E'escapes of surrogates in the payload, \\ud800 to \\udfff, must come in pairs';
    elsif v_deep or v_number then
        -- Every second part between quotation marks is a string.
        select string_agg(p.part, '' order by p.ordinal) into v_outside
        from unnest(string_to_array(replace(replace(v_text, E'\\\\', ''), E'\\"', ''), '"')) with ordinality as p (part, ordinal)
        where p.ordinal % 2 = 1;
        if v_deep and fastpubsub.is_deeper(v_outside, 64) then
            v_problem := 'the payload is nested deeper than 64 levels';
        elsif v_number and strpos(translate(v_outside, '123456789.', '000000000'), repeat('0', 1001)) > 0 then
            v_problem := 'the payload has a number of more than 1000 digits';
        elsif v_number and v_outside ~ '[eE][-+]?0*(1(?!000(?![0-9]))[0-9]{3}|[2-9][0-9]{3}|[1-9][0-9]{4})' then
            v_problem := 'the payload has a number with an exponent beyond ±1000';
        end if;
    end if;
    if v_problem is not null then
        raise exception using errcode = 'FP422', message = v_problem;
    end if;
end;
$$;

-- functions/claim_messages.sql
-- Leases up to sum(p_limits) messages to the waiting consumers, the first p_limits[1] to p_consumer_ids[1] and so on: due retries
-- first, then the log after the cursor. May be lost in a crash: then the messages are ahead again, and `token` makes the holder
-- harmless. `scanned` and `last` tell an empty answer from one that only ran out of its share of time.
create or replace function fastpubsub.claim_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_limits integer [],
    p_consumer_ids text [],
    p_max_bytes bigint,
    p_scan_rows bigint default 50000,
    p_scan_milliseconds integer default 20,
    p_now timestamptz default null,
    out token bigint,
    out expires_at timestamptz,
    out scanned bigint,
    out last bigint,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out unreadable bigint [],
    out unreadable_created_at timestamptz []
)
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_settings fastpubsub.cursors;
    v_cursor record;
    v_limit integer;
    v_ends bigint [];
    v_log record;
    v_from_log integer := 0;
    v_revived boolean [] := '{}';
    v_bytes bigint := 0;
    v_random text;
begin
    -- An empty poll writes nothing: look without a lock whether there is anything to do.
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    scanned := v_cursor.position;
    last := greatest(v_cursor.last, v_cursor.position);
    if v_cursor.position is null or (claim_messages.last = v_cursor.position and not v_cursor.is_due) then
        perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
        return;
    end if;

    perform fastpubsub.begin_call(false);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_now := coalesce(p_now, clock_timestamp());
    select
        c.sequence, c.position, c.retry_due_at, c.retry_position, c.routed, c.purged, c.dropped,
        (
            select m.position from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1
        ) as last,
        exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
        ) as is_due
    into v_cursor
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    last := greatest(v_cursor.last, v_cursor.position);
    if cardinality(p_limits) = 1 then
        v_ends := p_limits;
    else
        select array_agg(l.sum) into v_ends
        from (select sum(u.size) over (order by u.ordinal) from unnest(p_limits) with ordinality as u (size, ordinal)) as l;
    end if;
    v_limit := v_ends[cardinality(v_ends)];

    positions := '{}';
    if v_cursor.is_due then
        select r.positions, r.attempts, r.created_at, r.payloads, r.attributes, r.revived, r.due_at, r.size
        into
            claim_messages.positions, claim_messages.attempts, claim_messages.created_at, claim_messages.payloads,
            claim_messages.attributes, v_revived, v_cursor.retry_due_at, v_bytes
        from fastpubsub.take_due_retries(
            p_topic_key, p_subscription_key, v_cursor.retry_due_at, v_cursor.retry_position, v_limit, p_max_bytes, v_now
        ) as r;
        v_cursor.retry_position := claim_messages.positions[cardinality(claim_messages.positions)];
        v_limit := v_limit - cardinality(claim_messages.positions);
    end if;

    if v_limit > 0 and v_bytes < p_max_bytes and v_cursor.position < last then
        if v_settings.filter_path is null then
            v_log := fastpubsub.read_log(
                p_topic_key, v_cursor.position, v_cursor.position + v_limit, p_max_bytes - v_bytes, v_bytes = 0
            );
            v_cursor.position := coalesce(v_log.positions[cardinality(v_log.positions)], v_cursor.position);
        else
            v_log := fastpubsub.read_matching_log(
                p_topic_key, v_cursor.position, last, v_settings.filter_path, v_limit, p_scan_rows, p_scan_milliseconds,
                p_max_bytes - v_bytes, v_bytes = 0
            );
            v_cursor.position := v_log.scanned;
            unreadable := v_log.unreadable;
            unreadable_created_at := v_log.unreadable_created_at;
        end if;
        v_from_log := coalesce(cardinality(v_log.positions), 0);
        if v_from_log > 0 then
            positions := claim_messages.positions || v_log.positions;
            attempts := claim_messages.attempts || array_fill(1, array[v_from_log]);
            created_at := claim_messages.created_at || v_log.created_at;
            payloads := claim_messages.payloads || v_log.payloads;
            attributes := claim_messages.attributes || v_log.attributes;
            v_revived := v_revived || array_fill(false, array[v_from_log]);
        end if;
    end if;
    scanned := v_cursor.position;

    if cardinality(claim_messages.positions) > 0 then
        v_random := gen_random_uuid()::text;
        token := ('x' || left(v_random, 8) || right(v_random, 8))::bit(64)::bigint;
        expires_at := v_now + make_interval(secs => v_settings.ack_deadline_seconds);
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.first_position, r.last_position, claim_messages.token, claim_messages.expires_at,
            r.attempts, r.revived, p_consumer_ids[r.consumer]
        from fastpubsub.lease_runs(claim_messages.positions, claim_messages.attempts, v_revived, v_ends) as r;
    end if;
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped
    ) values (
        p_topic_key, p_subscription_key, v_cursor.sequence + 1, v_cursor.position, v_cursor.retry_due_at, v_cursor.retry_position,
        v_cursor.routed + v_from_log, v_cursor.purged, v_cursor.dropped
    );
end;
$$;

-- functions/compile_filter.sql
-- {"field": [v1, v2]} as a strict jsonpath (lax would look inside arrays), null for a filter that lets everything pass.
create or replace function fastpubsub.compile_filter(p_filter json) returns jsonpath
language plpgsql immutable as $$
declare
    v_field record;
    v_value record;
    v_fields text[] := '{}';
    v_values text[];
    v_names text[] := '{}';
    v_count integer := 0;
begin
    if p_filter is null or json_typeof(p_filter) = 'null' then
        return null;
    end if;
    if json_typeof(p_filter) <> 'object' then
        raise exception using errcode = 'FP422', message = 'a filter is an object of field names and lists of values';
    end if;
    for v_field in select f.key, f.value from json_each(p_filter) as f loop
        if v_field.key = any(v_names) then
            raise exception using errcode = 'FP422', message = format('the filter names the field %s twice', to_json(v_field.key));
        end if;
        v_names := v_names || v_field.key;
        if json_typeof(v_field.value) <> 'array' or json_array_length(v_field.value) = 0 then
            raise exception using
                errcode = 'FP422',
                message = format('the filter of the field %s is a list of at least one value', to_json(v_field.key));
        end if;
        v_values := '{}';
        for v_value in select e.value from json_array_elements(v_field.value) as e loop
            if json_typeof(v_value.value) not in ('string', 'number', 'boolean') then
                raise exception using
                    errcode = 'FP422',
                    message = format('the filter of the field %s takes strings, numbers and booleans only', to_json(v_field.key));
            end if;
            v_values := v_values || format('@.%s == %s', to_json(v_field.key), v_value.value::jsonb);
        end loop;
        v_count := v_count + cardinality(v_values);
        v_fields := v_fields || ('(' || array_to_string(v_values, ' || ') || ')');
    end loop;
    if cardinality(v_fields) > 100 or v_count > 1000 then
        raise exception using errcode = 'FP422', message = 'a filter has at most 100 fields and 1000 values';
    end if;
    if v_count = 0 then
        return null;
    end if;
    return ('strict $ ? (' || array_to_string(v_fields, ' && ') || ')')::jsonpath;
end;
$$;

-- functions/create_client.sql
create or replace function fastpubsub.create_client(
    p_name text,
    p_scopes text,
    p_secret_hash text,
    p_is_active boolean,
    p_now timestamptz default null,
    out id uuid
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.begin_call(true);
    insert into fastpubsub.clients as c (id, name, scopes, secret_hash, is_active, created_at, updated_at)
    values (gen_random_uuid(), p_name, p_scopes, p_secret_hash, p_is_active, v_now, v_now)
    returning c.id into create_client.id;
end;
$$;

-- functions/create_subscription.sql
-- p_start_from is 'earliest', 'latest' or 'time' (then from p_start_time on).
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
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    if p_backoff_max_seconds < p_backoff_min_seconds then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    -- Waits for publishers, so that "latest" is behind every message that was answered, and for deleting.
    select h.topic_key into create_subscription.topic_key
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = p_topic_id
    for no key update of h;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_topic_id);
    end if;
    insert into fastpubsub.subscriptions as s (topic_key, id, filter, created_at)
    values (create_subscription.topic_key, p_id, case when v_path is not null then p_filter end, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning s.subscription_key, s.created_at into create_subscription.subscription_key, create_subscription.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('subscription "%s" already exists', p_id);
    end if;
    if p_start_from <> 'latest' then
        -- Trimming does not know the new cursor yet, and must not take what it is about to stand before.
        perform fastpubsub.lock_job('trim_messages', true);
    end if;
    v_position := case p_start_from
        when 'earliest' then fastpubsub.position_before(create_subscription.topic_key, '-infinity')
        when 'time' then fastpubsub.position_before(create_subscription.topic_key, p_start_time)
        else fastpubsub.last_position(create_subscription.topic_key)
    end;
    insert into fastpubsub.cursors (
        topic_key, subscription_key, filter_path, ack_deadline_seconds,
        max_delivery_attempts, backoff_min_seconds, backoff_max_seconds
    ) values (
        create_subscription.topic_key, create_subscription.subscription_key, v_path, p_ack_deadline_seconds,
        p_max_delivery_attempts, p_backoff_min_seconds, p_backoff_max_seconds
    );
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped
    ) values (create_subscription.topic_key, create_subscription.subscription_key, 1, v_position, '-infinity', 0, 0, 0, 0);
end;
$$;

-- functions/create_topic.sql
create or replace function fastpubsub.create_topic(
    p_id text,
    p_retention_seconds bigint default null,
    p_schema json default null,
    p_now timestamptz default null,
    out topic_key bigint,
    out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform fastpubsub.begin_call(true);
    insert into fastpubsub.topics as t (id, created_at) values (p_id, coalesce(p_now, clock_timestamp()))
    on conflict (id) do nothing
    returning t.topic_key, t.created_at into create_topic.topic_key, create_topic.created_at;
    if not found then
        raise exception using errcode = 'FP409', message = format('topic "%s" already exists', p_id);
    end if;
    -- A message id has 32 bits for the topic.
    if create_topic.topic_key >= 4294967296 then
        raise exception using errcode = 'FP422', message = 'all 4294967295 topics that can ever be created have been created';
    end if;
    insert into fastpubsub.heads (topic_key, retention_seconds, schema, schema_version)
    values (create_topic.topic_key, p_retention_seconds, p_schema, fastpubsub.schema_version(p_schema));
end;
$$;

-- functions/cut_leases.sql
-- For take_leases: takes single positions out of leases, whatever their runs; the caller holds the cursor. What is left of a lease
-- stays, as leases with the same token and deadline.
create or replace function fastpubsub.cut_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [],
    out positions bigint [],
    out tokens bigint [],
    out attempts integer [],
    out revived boolean [],
    out consumer_ids text [],
    out ordinals integer [],
    out outcomes smallint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_wanted bigint [];
    v_ordinals integer [];
    v_firsts bigint [];
    v_part record;
    v_lease fastpubsub.leases;
begin
    -- No lease is longer than 100: the lease of a position is the nearest one that begins at it or before it.
    select
        array_agg(i.position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.ordinal order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.first_position order by i.position) filter (where i.outcome = 1 and i.is_first),
        array_agg(i.outcome order by i.ordinal, i.step)
    into v_wanted, v_ordinals, v_firsts, cut_leases.outcomes
    from (
        select
            i.position, i.ordinal, i.step, i.first_position, i.outcome,
            row_number() over (partition by i.position, i.outcome order by i.ordinal, i.step) = 1 as is_first
        from (
            select
                i.position, i.ordinal, i.step, l.position as first_position,
                case
                    when l.position is null or l.last_position < i.position then 0
                    when i.token is not null then case when l.token = i.token then 1 else 2 end
                    when
                        i.created_at = (
                            select m.created_at from fastpubsub.messages as m
                            where m.topic_key = p_topic_key and m.position = i.position
                        )
                        or i.created_at = (
                            select v.created_at from fastpubsub.revived as v
                            where
                                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = i.position
                        )
                        then 1
                    else 2
                end::smallint as outcome
            from (
                select r.position + s as position, r.token, r.created_at, r.ordinal, s as step
                from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                    with ordinality as r (position, length, token, created_at, ordinal)
                cross join lateral generate_series(0, coalesce(r.length, 1) - 1) as s
            ) as i
            left join lateral (
                select l.position, l.last_position, l.token from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position <= i.position and l.position > i.position - 100
                order by l.position desc
                limit 1
            ) as l on true
        ) as i
    ) as i;
    for v_part in
        select w.first_position, array_agg(w.position order by w.position) as positions
        from unnest(v_wanted, v_firsts) as w (position, first_position)
        group by w.first_position
        order by w.first_position
    loop
        delete from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_part.first_position
        returning l.* into v_lease;
        if not found then
            raise exception using errcode = '40001', message = 'a delivery was settled by somebody else at the same moment';
        end if;
        insert into fastpubsub.leases (
            topic_key, subscription_key, position, last_position, token, expires_at, attempts, revived, consumer_id
        )
        select
            p_topic_key, p_subscription_key, r.position, r.last_position, v_lease.token, v_lease.expires_at, v_lease.attempts,
            v_lease.revived, v_lease.consumer_id
        from (
            select lag(p, 1, v_lease.position - 1) over (order by p) + 1 as position, p - 1 as last_position
            from unnest(v_part.positions || v_lease.last_position + 1) as p
        ) as r
        where r.position <= r.last_position;
        positions := cut_leases.positions || v_part.positions;
        tokens := cut_leases.tokens || array_fill(v_lease.token, array[cardinality(v_part.positions)]);
        attempts := cut_leases.attempts || array_fill(v_lease.attempts, array[cardinality(v_part.positions)]);
        revived := cut_leases.revived || array_fill(v_lease.revived, array[cardinality(v_part.positions)]);
        consumer_ids := cut_leases.consumer_ids || array_fill(v_lease.consumer_id, array[cardinality(v_part.positions)]);
    end loop;
    ordinals := v_ordinals;
end;
$$;

-- functions/delete_client.sql
-- p_granted, when given, are the scopes of the caller, who must cover what the client may do.
create or replace function fastpubsub.delete_client(p_id uuid, p_granted text[] default null) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_scopes text;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes into v_scopes from fastpubsub.clients as c where c.id = p_id for update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you lack; only who has them may delete it', p_id);
    end if;
    delete from fastpubsub.clients as c where c.id = p_id;
end;
$$;

-- functions/delete_subscription.sql
create or replace function fastpubsub.delete_subscription(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
    v_subscription_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select s.topic_key, s.subscription_key into v_topic_key, v_subscription_key
    from fastpubsub.subscriptions as s where s.id = p_id;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key and c.subscription_key = v_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    delete from fastpubsub.subscriptions as s where s.subscription_key = v_subscription_key;
    insert into fastpubsub.purges (topic_key, subscription_key) values (v_topic_key, v_subscription_key);
end;
$$;

-- functions/delete_topic.sql
-- Constant time in the number of messages: names and locked rows go, `purges` remembers the rest.
create or replace function fastpubsub.delete_topic(p_id text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
begin
    perform fastpubsub.begin_call(true);
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    delete from fastpubsub.heads as h where h.topic_key = v_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    perform from fastpubsub.cursors as c where c.topic_key = v_topic_key order by c.subscription_key for update;
    delete from fastpubsub.cursors as c where c.topic_key = v_topic_key;
    delete from fastpubsub.subscriptions as s where s.topic_key = v_topic_key;
    delete from fastpubsub.topics as t where t.topic_key = v_topic_key;
    insert into fastpubsub.purges (topic_key) values (v_topic_key);
end;
$$;

-- functions/empty_purges.sql
-- Deletes up to p_limit rows per table of what one deleted topic or subscription left. Returns how many rows went, null when there was
-- nothing left.
create or replace function fastpubsub.empty_purges(p_limit integer default 5000) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_purge fastpubsub.purges;
    v_table text;
    v_rows bigint;
    v_deleted bigint := 0;
begin
    perform fastpubsub.begin_call(false);
    select p.* into v_purge from fastpubsub.purges as p order by p.purge_key limit 1 for update skip locked;
    if not found then
        return null;
    end if;
    foreach v_table in array array ['leases', 'retries', 'dead_letters', 'revived', 'claims', 'idempotency_keys', 'messages'] loop
        continue when v_table in ('idempotency_keys', 'messages') and v_purge.subscription_key is not null;
        execute format(
            'delete from fastpubsub.%1$I where ctid = any(array(select t.ctid from fastpubsub.%1$I as t where t.topic_key = $1%2$s limit $3))',
            v_table, case when v_purge.subscription_key is not null then ' and t.subscription_key = $2' else '' end
        ) using v_purge.topic_key, v_purge.subscription_key, p_limit;
        get diagnostics v_rows = row_count;
        v_deleted := v_deleted + v_rows;
    end loop;
    if v_deleted = 0 then
        delete from fastpubsub.purges as p where p.purge_key = v_purge.purge_key;
    end if;
    return v_deleted;
end;
$$;

-- functions/extend_leases.sql
-- Moves the deadline of held deliveries, each run of ids to its p_extend_seconds from now. Per id: 1 still held, 0 gone, 2 stale (see
-- take_leases).
create or replace function fastpubsub.extend_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_extend_seconds integer [],
    p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    insert into fastpubsub.leases (
        topic_key, subscription_key, position, last_position, token, expires_at, attempts, revived, consumer_id
    )
    select
        p_topic_key, p_subscription_key, min(t.position), max(t.last_position), t.token,
        coalesce(p_now, clock_timestamp()) + make_interval(secs => p_extend_seconds[t.run]), t.attempts, t.revived, t.consumer_id
    from (
        select
            t.*, t.position - sum(t.last_position - t.position + 1)
                over (partition by t.token, t.run, t.attempts, t.revived, t.consumer_id order by t.position rows unbounded preceding)
            + (t.last_position - t.position) as island,
            -- Single positions were cut out of leases: they become one again, not longer than a lease can be.
            case when t.position = t.last_position then t.position / 100 else - t.position end as part
        from unnest(
            v_taken.positions, v_taken.last_positions, v_taken.tokens, v_taken.attempts, v_taken.revived, v_taken.consumer_ids,
            v_taken.ordinals
        ) as t (position, last_position, token, attempts, revived, consumer_id, run)
    ) as t
    group by t.token, t.run, t.attempts, t.revived, t.consumer_id, t.island, t.part
    order by min(t.position);
    return v_taken.outcomes;
end;
$$;

-- functions/find_client_credentials.sql
-- What issuing a token needs; the one procedure that gives out a hash. old_secret_hash is null unless that secret is still good.
create or replace function fastpubsub.find_client_credentials(
    p_id uuid,
    p_now timestamptz default null,
    out secret_hash text,
    out old_secret_hash text,
    out scopes text,
    out is_active boolean,
    out token_version bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select
        c.secret_hash,
        case when c.old_secret_expires_at > coalesce(p_now, clock_timestamp()) then c.old_secret_hash end,
        c.scopes, c.is_active, c.token_version
    into find_client_credentials.secret_hash, find_client_credentials.old_secret_hash, find_client_credentials.scopes,
        find_client_credentials.is_active, find_client_credentials.token_version
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/first_position.sql
-- The lowest kept position of a topic whose newest is p_last. Positions are dense and trimmed from the front, so a binary search of
-- point lookups finds it without walking over the rows that trimming left for vacuum.
create or replace function fastpubsub.first_position(p_topic_key bigint, p_last bigint) returns bigint
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_low bigint := 1;
    v_high bigint := p_last;
    v_middle bigint;
begin
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        if exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_middle) then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low;
end;
$$;

-- functions/get_client.sql
create or replace function fastpubsub.get_client(
    p_id uuid,
    out id uuid,
    out name text,
    out scopes text,
    out is_active boolean,
    out token_version bigint,
    out created_at timestamptz,
    out updated_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    into get_client.id, get_client.name, get_client.scopes, get_client.is_active, get_client.token_version,
        get_client.created_at, get_client.updated_at
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/get_client_state.sql
-- What checking a token needs: a token of another version, or of a client that is not active, is no longer good.
create or replace function fastpubsub.get_client_state(p_id uuid, out token_version bigint, out is_active boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select c.token_version, c.is_active into get_client_state.token_version, get_client_state.is_active
    from fastpubsub.clients as c
    where c.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/get_schema.sql
-- The schema that payloads of a topic must match now, and its version.
create or replace function fastpubsub.get_schema(p_topic_key bigint, out schema json, out schema_version bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select h.schema, h.schema_version into get_schema.schema, get_schema.schema_version
    from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
end;
$$;

-- functions/get_topic.sql
create or replace function fastpubsub.get_topic(
    p_id text,
    out topic_key bigint,
    out id text,
    out retention_seconds bigint,
    out created_at timestamptz,
    out schema json
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select t.topic_key, t.id, h.retention_seconds, t.created_at, h.schema
    into get_topic.topic_key, get_topic.id, get_topic.retention_seconds, get_topic.created_at, get_topic.schema
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/held_leases.sql
-- Which of these deliveries are still with their consumer.
create or replace function fastpubsub.held_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint []
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_held bigint [];
begin
    select array_agg(h.position) into v_held
    from unnest(p_positions, p_tokens) as h (position, token)
    cross join lateral (
        select l.last_position, l.token from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and l.position <= h.position and l.position > h.position - 100
        order by l.position desc
        limit 1
    ) as l
    where l.last_position >= h.position and l.token = h.token;
    return coalesce(v_held, '{}');
end;
$$;

-- functions/hold_job.sql
-- Makes a process the one that looks for work most often. Whoever had been it sees that at its next look.
create or replace function fastpubsub.hold_job(p_name text, p_holder text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(false);
    update fastpubsub.jobs as j set holder = p_holder where j.name = p_name;
end;
$$;

-- functions/inspect_leases.sql
-- The lease that ends, or has ended, first: with whom it is, and its deadline; no row without leases. For `fastpubsub doctor`; writes
-- nothing.
create or replace function fastpubsub.inspect_leases()
returns table (subscription_id text, consumer_id text, expires_at timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select s.id, l.consumer_id, l.expires_at
    from (
        select o.subscription_key, o.consumer_id, o.expires_at from fastpubsub.leases as o
        order by o.expires_at
        limit 1
    ) as l
    inner join fastpubsub.subscriptions as s on s.subscription_key = l.subscription_key;
end;
$$;

-- functions/inspect_outbox.sql
-- How many rows wait in the outbox, counted up to p_limit, and the key of the first: when it stays the same, nobody relays. For
-- `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_outbox(p_limit integer, out waiting bigint, out first_key text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    select count(*), (array_agg(o.transaction_id || '/' || o.ordinal))[1] into waiting, first_key
    from (
        select a.transaction_id, a.ordinal from fastpubsub.outbox as a
        order by a.transaction_id, a.ordinal
        limit p_limit
    ) as o;
end;
$$;

-- functions/inspect_tables.sql
-- What PostgreSQL knows of our tables: rows, dead rows that vacuum has not removed, size with indexes, the last vacuum of any kind, and
-- whether autovacuum is on for it. For `fastpubsub doctor`; writes nothing.
create or replace function fastpubsub.inspect_tables()
returns table (table_name text, live bigint, dead bigint, bytes bigint, vacuumed_at timestamptz, autovacuum boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        s.relname::text,
        s.n_live_tup,
        s.n_dead_tup,
        pg_total_relation_size(s.relid),
        greatest(s.last_vacuum, s.last_autovacuum),
        not coalesce(c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off'], false)
    from pg_stat_all_tables as s inner join pg_class as c on s.relid = c.oid
    where s.schemaname = 'fastpubsub'
    order by s.relname;
end;
$$;

-- functions/is_deeper.sql
-- Whether JSON without its strings is nested deeper than so many levels: each turn takes the innermost one away.
create or replace function fastpubsub.is_deeper(p_outside text, p_levels integer) returns boolean
language plpgsql immutable as $$
declare
    v_brackets text := translate(p_outside, E'{}0123456789+-.eEtrufalsn,: \t\n\r', '[]');
begin
    for i in 1..p_levels loop
        v_brackets := replace(v_brackets, '[]', '');
        exit when v_brackets = '';
    end loop;
    return v_brackets <> '';
end;
$$;

-- functions/is_jsonb.sql
-- Whether PostgreSQL can read what `json` only stored.
create or replace function fastpubsub.is_jsonb(p_payload json) returns boolean
language plpgsql stable as $$
begin
    return jsonb_typeof(p_payload::jsonb) is not null;
exception
    when data_exception then
        return false;
end;
$$;

-- functions/last_position.sql
-- The newest position of a topic, 0 when nothing was published: the right edge of the index.
create or replace function fastpubsub.last_position(p_topic_key bigint) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_last bigint;
begin
    select m.position into v_last
    from fastpubsub.messages as m
    where m.topic_key = p_topic_key
    order by m.position desc
    limit 1;
    return coalesce(v_last, 0);
end;
$$;

-- functions/lease_runs.sql
-- Cuts claimed messages into leases: consecutive positions, at most 100, of one consumer, with the same attempts. p_ends: how many
-- messages the first consumer, the first two, … get.
create or replace function fastpubsub.lease_runs(
    p_positions bigint [],
    p_attempts integer [],
    p_revived boolean [],
    p_ends bigint []
) returns table (first_position bigint, last_position bigint, attempts integer, revived boolean, consumer integer)
language plpgsql immutable
as $$
#variable_conflict use_column
declare
    v_count bigint := cardinality(p_positions);
begin
    -- The usual case: a stretch of the log.
    if p_positions[v_count] - p_positions[1] = v_count - 1 and p_attempts = array_fill(1, array[v_count::integer]) then
        return query
        select
            p_positions[1] + f, p_positions[1] + least(f + 99, e.ends - 1, v_count - 1), 1, p_revived[1], e.consumer::integer
        from unnest(p_ends) with ordinality as e (ends, consumer)
        cross join lateral generate_series(coalesce(p_ends[e.consumer - 1], 0), least(e.ends, v_count) - 1, 100) as f;
        return;
    end if;
    return query
    select min(r.position), max(r.position), r.attempts, r.revived, r.consumer
    from (
        select
            m.position, m.attempts, m.revived, m.consumer,
            m.position - row_number() over (partition by m.consumer, m.attempts, m.revived order by m.position) as island
        from (
            select u.position, u.attempts, u.revived, 1 + width_bucket(u.ordinal - 1, p_ends) as consumer
            from unnest(p_positions, p_attempts, p_revived) with ordinality as u (position, attempts, revived, ordinal)
        ) as m
    ) as r
    group by r.consumer, r.attempts, r.revived, r.island, r.position / 100;
end;
$$;

-- functions/lift_stranded_retries.sql
-- The net below the floor of the retries: a row at or below it would never be taken. Expected to find none; returns how many it lifted.
create or replace function fastpubsub.lift_stranded_retries(p_topic_key bigint, p_subscription_key bigint) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_lifted integer;
begin
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if
        not exists (
            select from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position)
        )
    then
        return 0;
    end if;
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    update fastpubsub.retries as r set due_at = v_cursor.retry_due_at + interval '1 microsecond'
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position);
    get diagnostics v_lifted = row_count;
    return v_lifted;
end;
$$;

-- functions/list_clients.sql
-- Ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.list_clients(p_offset bigint, p_limit integer, p_ids uuid[] default null)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version bigint, created_at timestamptz, updated_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    from fastpubsub.clients as c
    where p_ids is null or c.id = any(p_ids)
    order by c.id
    offset p_offset
    limit p_limit;
end;
$$;

-- functions/list_dead_letters.sql
-- Oldest position first.
create or replace function fastpubsub.list_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_offset bigint,
    p_limit integer,
    p_max_bytes bigint
) returns table (
    message_position bigint,
    created_at timestamptz,
    died_at timestamptz,
    attempts integer,
    reason text,
    payload json,
    attributes jsonb
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    return query
    select t.position, t.created_at, t.died_at, t.attempts, t.reason, t.payload, t.attributes
    from (
        select
            p.*,
            sum(pg_column_size(p.payload) + coalesce(pg_column_size(p.attributes), 0)) over (order by p.position) as running,
            row_number() over (order by p.position) as ordinal
        from (
            select d.* from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
            order by d.position
            offset p_offset
            limit p_limit
        ) as p
    ) as t
    where t.running <= p_max_bytes or t.ordinal = 1
    order by t.position;
end;
$$;

-- functions/list_expired_leases.sql
-- The subscriptions with leases past their deadline, and how many messages these hold. p_look_back_seconds is how far behind now a
-- deadline can be that an earlier pass did not handle (null: any), so that a pass does not walk over rows that others deleted.
create or replace function fastpubsub.list_expired_leases(
    p_look_back_seconds double precision default null,
    p_now timestamptz default null
) returns table (topic_key bigint, subscription_key bigint, subscription_id text, expired bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_floor timestamptz := coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity');
begin
    return query
    select e.topic_key, e.subscription_key, s.id, e.expired
    from (
        select l.topic_key, l.subscription_key, sum(l.last_position - l.position + 1)::bigint as expired
        from fastpubsub.leases as l
        where l.expires_at > v_floor and l.expires_at <= v_now
        group by l.topic_key, l.subscription_key
    ) as e
    inner join fastpubsub.subscriptions as s on s.topic_key = e.topic_key and s.subscription_key = e.subscription_key;
end;
$$;

-- functions/list_kept_messages.sql
-- Which subscriptions keep the log of their topic from being deleted: the oldest message that each still needs, because it was not read,
-- is leased or waits, how many the topic has from there on, and how long the topic keeps messages that nobody needs (null: as the
-- server says). The worst first. For `fastpubsub doctor` and for people; writes nothing.
create or replace function fastpubsub.list_kept_messages(p_limit integer)
returns table (topic_id text, subscription_id text, kept bigint, since timestamptz, retention_seconds bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        t.id,
        s.id,
        fastpubsub.last_position(s.topic_key) - n.position + 1,
        m.created_at,
        h.retention_seconds
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.heads as h on s.topic_key = h.topic_key
    cross join lateral (
        select least(
            (
                select c.position + 1 from fastpubsub.claims as c
                where c.topic_key = s.topic_key and c.subscription_key = s.subscription_key
                order by c.sequence desc limit 1
            ),
            (
                select min(l.position) from fastpubsub.leases as l
                where l.topic_key = s.topic_key and l.subscription_key = s.subscription_key
            ),
            (
                select min(r.position) from fastpubsub.retries as r
                where r.topic_key = s.topic_key and r.subscription_key = s.subscription_key
            )
        ) as position
    ) as n
    inner join fastpubsub.messages as m on m.topic_key = s.topic_key and m.position = n.position
    order by 3 desc
    limit p_limit;
end;
$$;

-- functions/list_outbox.sql
-- Rows of the outbox in the order of (transaction, ordinal), after a given one, up to p_limit and p_max_bytes of payloads (at least one).
-- p_seen is a snapshot from before an earlier call that took all it saw: then only transactions come that it did not show as ended, each
-- found by its key, so that nothing is walked over that was moved since; without it all come. `seen` is the p_seen of later calls.
-- `held` says whether p_holder holds the job, `more` whether there are further rows. Writes nothing.
create or replace function fastpubsub.list_outbox(
    p_seen text,
    p_after_transaction bigint,
    p_after_ordinal bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_holder text default null,
    out held boolean,
    out seen text,
    out topic_keys bigint [],
    out transactions bigint [],
    out ordinals bigint [],
    out more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- Taken before the rows are read: what is not ended in it may be seen below, but then comes again and is found to be gone.
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_seen pg_snapshot := p_seen::pg_snapshot;
    v_transaction xid8 := p_after_transaction::text::xid8;
    v_ordinal bigint := p_after_ordinal;
    v_rows bigint;
begin
    held := coalesce((select j.holder = p_holder from fastpubsub.jobs as j where j.name = 'relay_messages'), false);
    seen := v_snapshot::text;
    -- After a failover transactions may count from further back.
    if pg_snapshot_xmax(v_seen) > pg_snapshot_xmax(v_snapshot) then
        v_seen := null;
    end if;
    if pg_snapshot_xmax(v_seen) > v_transaction then
        v_transaction := pg_snapshot_xmax(v_seen);
        v_ordinal := 0;
    end if;
    select
        array_agg(r.topic_key order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        array_agg(r.transaction_id::text::bigint order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        array_agg(r.ordinal order by r.transaction_id, r.ordinal) filter (where r.bytes_before < p_max_bytes),
        count(*)
    into topic_keys, transactions, ordinals, v_rows
    from (
        select
            b.topic_key, b.transaction_id, b.ordinal,
            sum(b.bytes) over (order by b.transaction_id, b.ordinal) - b.bytes as bytes_before
        from (
            (
                select l.topic_key, l.transaction_id, l.ordinal, l.bytes
                from pg_snapshot_xip(v_seen) as x (transaction_id)
                cross join lateral (
                    select o.topic_key, o.transaction_id, o.ordinal, pg_column_size(o.payload) as bytes
                    from fastpubsub.outbox as o
                    where
                        o.transaction_id = x.transaction_id
                        and (o.transaction_id, o.ordinal) > (p_after_transaction::text::xid8, p_after_ordinal)
                    order by o.transaction_id, o.ordinal
                    limit p_limit
                ) as l
            )
            union all
            (
                select o.topic_key, o.transaction_id, o.ordinal, pg_column_size(o.payload) as bytes
                from fastpubsub.outbox as o
                where (o.transaction_id, o.ordinal) > (v_transaction, v_ordinal)
                order by o.transaction_id, o.ordinal
                limit p_limit
            )
        ) as b
        order by b.transaction_id, b.ordinal
        limit p_limit
    ) as r;
    more := v_rows > 0 and (v_rows >= p_limit or cardinality(ordinals) < v_rows);
end;
$$;

-- functions/list_ready_subscriptions.sql
-- For consumers that wait: which of the subscriptions have something to claim, or are gone (`ready`), and in how many seconds the next
-- message that waits for its retry is due. Names each by its place in the arrays; those with nothing to tell are left out.
create or replace function fastpubsub.list_ready_subscriptions(
    p_topic_keys bigint [],
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns table (place integer, ready boolean, due_seconds double precision)
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    return query
    select s.place, s.ready, s.due_seconds
    from (
        select
            k.ordinal::integer as place,
            c.position is null
            or exists (
                select from fastpubsub.messages as m where m.topic_key = k.topic_key and m.position = c.position + 1
            )
            or exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = k.topic_key and r.subscription_key = k.subscription_key
                    and (r.due_at, r.position) > (c.retry_due_at, c.retry_position) and r.due_at <= v_now
            ) as ready,
            (
                select extract(epoch from r.due_at - v_now)::double precision from fastpubsub.retries as r
                where r.topic_key = k.topic_key and r.subscription_key = k.subscription_key and r.due_at > v_now
                order by r.due_at, r.position
                limit 1
            ) as due_seconds
        from unnest(p_topic_keys, p_subscription_keys) with ordinality as k (topic_key, subscription_key, ordinal)
        left join lateral (
            select n.position, n.retry_due_at, n.retry_position
            from fastpubsub.cursors as u
            cross join lateral (
                select n.position, n.retry_due_at, n.retry_position from fastpubsub.claims as n
                where n.topic_key = u.topic_key and n.subscription_key = u.subscription_key
                order by n.sequence desc
                limit 1
            ) as n
            where u.topic_key = k.topic_key and u.subscription_key = k.subscription_key
        ) as c on true
    ) as s
    where s.ready or s.due_seconds is not null;
end;
$$;

-- functions/list_stranded_retries.sql
-- The subscriptions with a waiting message at or below the floor of the retries taken, where no claim would find it: expected none.
create or replace function fastpubsub.list_stranded_retries()
returns table (topic_key bigint, subscription_key bigint, subscription_id text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_subscription record;
    v_cursor fastpubsub.claims;
begin
    for v_subscription in select s.topic_key, s.subscription_key, s.id from fastpubsub.subscriptions as s loop
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = v_subscription.topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        if
            exists (
                select from fastpubsub.retries as r
                where
                    r.topic_key = v_subscription.topic_key and r.subscription_key = v_subscription.subscription_key
                    and (r.due_at, r.position) <= (v_cursor.retry_due_at, v_cursor.retry_position)
            )
        then
            topic_key := v_subscription.topic_key;
            subscription_key := v_subscription.subscription_key;
            subscription_id := v_subscription.id;
            return next;
        end if;
    end loop;
end;
$$;

-- functions/list_subscription_metrics.sql
-- The metrics of up to p_limit subscriptions for one scrape.
create or replace function fastpubsub.list_subscription_metrics(p_limit integer)
returns table (
    subscription_id text,
    topic_id text,
    ahead bigint,
    waiting bigint,
    leased bigint,
    dead bigint,
    acked bigint,
    oldest_created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_subscription record;
begin
    for v_subscription in
        select s.id, t.id as topic_id, s.topic_key, s.subscription_key
        from fastpubsub.subscriptions as s inner join fastpubsub.topics as t on s.topic_key = t.topic_key
        order by s.subscription_key
        limit p_limit
    loop
        return query
        select v_subscription.id, v_subscription.topic_id, m.ahead, m.waiting, m.leased, m.dead, m.acked, m.oldest_created_at
        from fastpubsub.subscription_metrics(v_subscription.topic_key, v_subscription.subscription_key, 1000) as m;
    end loop;
end;
$$;

-- functions/list_subscriptions.sql
-- Ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.list_subscriptions(p_offset bigint, p_limit integer, p_ids text[] default null)
returns table (
    id text,
    topic_id text,
    filter json,
    ack_deadline_seconds integer,
    max_delivery_attempts integer,
    backoff_min_seconds integer,
    backoff_max_seconds integer,
    created_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select
        s.id, t.id, s.filter, c.ack_deadline_seconds, c.max_delivery_attempts,
        c.backoff_min_seconds, c.backoff_max_seconds, s.created_at
    from fastpubsub.subscriptions as s
    inner join fastpubsub.topics as t on s.topic_key = t.topic_key
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    where p_ids is null or s.id = any(p_ids)
    order by s.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;

-- functions/list_topic_metrics.sql
-- For one scrape: how many messages were ever published to each of up to p_limit topics.
create or replace function fastpubsub.list_topic_metrics(p_limit integer)
returns table (topic_id text, published bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, fastpubsub.last_position(t.topic_key)
    from fastpubsub.topics as t
    order by t.topic_key
    limit p_limit;
end;
$$;

-- functions/list_topics.sql
-- Ordered by id; p_ids, when given, are the only ones that the caller may see.
create or replace function fastpubsub.list_topics(p_offset bigint, p_limit integer, p_ids text[] default null)
returns table (id text, retention_seconds bigint, created_at timestamptz, schema json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select t.id, h.retention_seconds, t.created_at, h.schema
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where p_ids is null or t.id = any(p_ids)
    order by t.id collate "C"
    offset p_offset
    limit p_limit;
end;
$$;

-- functions/list_trimmable.sql
-- The topics where trim_messages has work: a message past the retention, or claims and idempotency keys nobody needs.
create or replace function fastpubsub.list_trimmable(
    p_retention_seconds bigint,
    p_window_seconds integer,
    p_now timestamptz default null
) returns table (topic_key bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_head record;
    v_last bigint;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    for v_head in select h.topic_key, coalesce(h.retention_seconds, p_retention_seconds) as retention from fastpubsub.heads as h loop
        v_last := fastpubsub.last_position(v_head.topic_key);
        if
            exists (
                select from fastpubsub.messages as m
                where
                    m.topic_key = v_head.topic_key and m.position = fastpubsub.first_position(v_head.topic_key, v_last)
                    and m.position < v_last and m.created_at < v_now - make_interval(secs => v_head.retention)
            )
            or exists (
                select from fastpubsub.idempotency_keys as k
                where k.topic_key = v_head.topic_key and k.created_at < v_now - make_interval(secs => p_window_seconds)
            )
            or exists (
                select from fastpubsub.cursors as c
                cross join lateral (
                    select n.sequence from fastpubsub.claims as n
                    where n.topic_key = c.topic_key and n.subscription_key = c.subscription_key
                    order by n.sequence desc limit 1
                ) as n
                inner join fastpubsub.claims as o
                    on o.topic_key = c.topic_key and o.subscription_key = c.subscription_key and o.sequence = n.sequence - 1
                where c.topic_key = v_head.topic_key
            )
        then
            topic_key := v_head.topic_key;
            return next;
        end if;
    end loop;
end;
$$;

-- functions/listen_to_servers.sql
-- This session hears what other servers tell with notify_servers.
create or replace function fastpubsub.listen_to_servers() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    listen fastpubsub;
end;
$$;

-- functions/lock_job.sql
-- Whether this transaction may run the job: one process at a time, by a row lock that ends with the transaction.
create or replace function fastpubsub.lock_job(p_name text, p_wait boolean) returns boolean
language plpgsql volatile as $$
begin
    if p_wait then
        perform from fastpubsub.jobs as j where j.name = p_name for update;
    else
        perform from fastpubsub.jobs as j where j.name = p_name for update skip locked;
    end if;
    return found;
end;
$$;

-- functions/lock_subscription.sql
-- Held by everything that inserts for a subscription.
create or replace function fastpubsub.lock_subscription(p_topic_key bigint, p_subscription_key bigint) returns fastpubsub.cursors
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_cursor fastpubsub.cursors;
begin
    select c.* into v_cursor from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    return v_cursor;
end;
$$;

-- functions/matching_positions.sql
-- The positions in (p_after, p_to] whose payload matches, in order, at most p_limit. A payload that cannot be read as jsonb does not
-- match and fails nobody: it is reported in `unreadable`.
create or replace function fastpubsub.matching_positions(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_path jsonpath,
    p_limit integer,
    out positions bigint [],
    out unreadable bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_message record;
begin
    begin
        select array_agg(f.position) into positions
        from (
            select m.position from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to and m.payload::jsonb @? p_path
            order by m.position
            limit p_limit
        ) as f;
        return;
    exception when data_exception or program_limit_exceeded then
        positions := null;
    end;
    for v_message in
        select m.position, m.payload from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    loop
        begin
            if v_message.payload::jsonb @? p_path then
                positions := positions || v_message.position;
            end if;
        exception when data_exception or program_limit_exceeded then
            unreadable := unreadable || v_message.position;
        end;
        exit when cardinality(positions) >= p_limit;
    end loop;
end;
$$;

-- functions/move_cursor.sql
-- A new newest row of `claims` for a caller that holds the cursor; the floor of the retries stays.
create or replace function fastpubsub.move_cursor(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_routed bigint,
    p_purged bigint
) returns void
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    insert into fastpubsub.claims (
        topic_key, subscription_key, sequence, position, retry_due_at, retry_position, routed, purged, dropped
    )
    select
        p_topic_key, p_subscription_key, c.sequence + 1, p_position, c.retry_due_at, c.retry_position, p_routed, p_purged, c.dropped
    from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
end;
$$;

-- functions/nack_messages.sql
-- Gives deliveries back for another attempt, each run of ids after its p_delay_seconds (null: the backoff of the subscription). Per id:
-- 1 settled, 0 gone, 2 stale (see take_leases); `died` counts those whose attempts were used up.
create or replace function fastpubsub.nack_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_delay_seconds integer [] default null,
    p_lengths integer [] default null,
    p_now timestamptz default null,
    out outcomes smallint [],
    out died integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    outcomes := v_taken.outcomes;
    died := 0;
    if v_taken.positions is not null then
        died := fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts,
            (
                select array_agg(p_delay_seconds[t.run] order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            null, 'nacked', coalesce(p_now, clock_timestamp())
        );
    end if;
end;
$$;

-- functions/notify_servers.sql
-- Tells all servers of this database what consumers may wait for. Nothing else belongs into its transaction: a commit with
-- notifications takes a lock that is one for the whole cluster.
create or replace function fastpubsub.notify_servers(p_payloads text []) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payload text;
begin
    foreach v_payload in array p_payloads loop
        perform pg_notify('fastpubsub', v_payload);
    end loop;
end;
$$;

-- functions/position_before.sql
-- The cursor position from which the first message created at or after p_time comes next; creation times never fall along a topic.
create or replace function fastpubsub.position_before(p_topic_key bigint, p_time timestamptz) returns bigint
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_last bigint := fastpubsub.last_position(p_topic_key);
    v_low bigint := fastpubsub.first_position(p_topic_key, v_last);
    v_high bigint := v_last + 1;
    v_middle bigint;
begin
    while v_low < v_high loop
        v_middle := (v_low + v_high) / 2;
        if (select m.created_at from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_middle) >= p_time then
            v_high := v_middle;
        else
            v_low := v_middle + 1;
        end if;
    end loop;
    return v_low - 1;
end;
$$;

-- functions/publish.sql
-- For applications: publishes from the caller's own transaction, so that the message exists exactly if the transaction commits. The
-- relay of a server moves it into the log within moments of the commit, those of one transaction in the order of the calls. Takes no
-- lock that others wait for and leaves the caller's settings alone. The server's rules hold: an unknown topic is FP404; a payload that
-- is no JSON object or that could not be read later, attributes that are no object of texts, and a topic with a schema, are FP422.
create or replace function fastpubsub.publish(topic text, payload json, attributes jsonb default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_topic_key bigint;
    v_schema_version bigint;
begin
    select t.topic_key, h.schema_version into v_topic_key, v_schema_version
    from fastpubsub.topics as t inner join fastpubsub.heads as h on t.topic_key = h.topic_key
    where t.id = publish.topic;
    if not found then
        raise exception using
            errcode = 'FP404',
            message = format('topic "%s" does not exist', left(publish.topic, 128)),
            hint = 'Create it first, or correct its name.';
    elsif v_schema_version <> 0 then
        raise exception using
            errcode = 'FP422',
            message = format('topic "%s" has a JSON Schema, which only servers can check', publish.topic),
            hint = 'Publish to it by HTTP, or to a topic without a schema.';
    end if;
    perform fastpubsub.check_payload(publish.payload);
    if publish.attributes in ('null', '{}') then
        publish.attributes := null;
    elsif publish.attributes is not null then
        perform fastpubsub.check_attributes(publish.attributes);
    end if;
    insert into fastpubsub.outbox (transaction_id, topic_key, payload, attributes)
    values (pg_current_xact_id(), v_topic_key, publish.payload, publish.attributes);
end;
$$;

revoke execute on function fastpubsub.publish(text, json, jsonb) from public;

-- functions/publish_messages.sql
-- Appends to a topic; the payloads get first_position, first_position + 1, … and one creation time (to the millisecond, as message
-- ids carry it). The row lock on the head, held to the commit, is what makes every position visible before the next is given out.
-- p_schema_version says by which schema of the topic the payloads were checked, 0 by none; when it is not the current one nothing is
-- stored (FP428). Null: they were accepted earlier.
create or replace function fastpubsub.publish_messages(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out first_position bigint,
    out created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select m.position + 1, greatest(publish_messages.created_at, m.created_at)
    into publish_messages.first_position, publish_messages.created_at
    from fastpubsub.messages as m
    where m.topic_key = p_topic_key
    order by m.position desc
    limit 1;
    if not found then
        first_position := 1;
        created_at := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    end if;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select p_topic_key, publish_messages.first_position + u.ordinal - 1, publish_messages.created_at, u.payload, u.attributes
    from unnest(p_payloads, p_attributes) with ordinality as u (payload, attributes, ordinal);
end;
$$;

-- functions/publish_messages_once.sql
-- Like publish_messages for several requests that each carry an idempotency key: p_counts says how many of the payloads are whose. A
-- request seen within the window stores nothing and gets its first answer; with another body its first_position is null. The lock on
-- the head makes a repetition wait for the first one.
create or replace function fastpubsub.publish_messages_once(
    p_topic_key bigint,
    p_payloads json [],
    p_attributes jsonb [],
    p_counts integer [],
    p_clients text [],
    p_keys text [],
    p_body_hashes bytea [],
    p_window_seconds integer,
    p_schema_version bigint default 0,
    p_now timestamptz default null,
    out first_positions bigint [],
    out created_at timestamptz []
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_now timestamptz;
    v_created_at timestamptz;
    v_next bigint;
    v_offset integer := 0;
    v_known fastpubsub.idempotency_keys;
    v_payloads json [] := '{}';
    v_attributes jsonb [] := '{}';
begin
    perform fastpubsub.begin_call(true);
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    elsif v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    select m.position + 1, m.created_at into v_next, v_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key order by m.position desc limit 1;
    v_next := coalesce(v_next, 1);
    v_created_at := greatest(date_trunc('milliseconds', v_now), v_created_at);
    for i in 1..cardinality(p_keys) loop
        select k.* into v_known from fastpubsub.idempotency_keys as k
        where k.topic_key = p_topic_key and k.client = p_clients[i] and k.key = p_keys[i];
        if found and v_known.created_at > v_now - make_interval(secs => p_window_seconds) then
            first_positions[i] := case when v_known.body_hash = p_body_hashes[i] then v_known.first_position end;
            created_at[i] := v_known.created_at;
        else
            insert into fastpubsub.idempotency_keys as k (
                topic_key, client, key, body_hash, first_position, message_count, created_at
            ) values (p_topic_key, p_clients[i], p_keys[i], p_body_hashes[i], v_next, p_counts[i], v_created_at)
            on conflict (topic_key, client, key) do update set
                body_hash = excluded.body_hash,
                first_position = excluded.first_position,
                message_count = excluded.message_count,
                created_at = excluded.created_at;
            first_positions[i] := v_next;
            created_at[i] := v_created_at;
            v_next := v_next + p_counts[i];
            v_payloads := v_payloads || p_payloads[v_offset + 1 : v_offset + p_counts[i]];
            v_attributes := v_attributes || p_attributes[v_offset + 1 : v_offset + p_counts[i]];
        end if;
        v_offset := v_offset + p_counts[i];
    end loop;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select p_topic_key, v_next - cardinality(v_payloads) + u.ordinal - 1, v_created_at, u.payload, u.attributes
    from unnest(v_payloads, v_attributes) with ordinality as u (payload, attributes, ordinal)
    where u.ordinal <= cardinality(v_payloads);
end;
$$;

-- functions/publish_to_topics.sql
-- Like publish_messages for several topics in one transaction. p_places says for each payload which of p_topic_keys it is for; those of
-- one topic follow each other, the first of them behind p_offsets others. Waits for no lock: a topic that another call publishes to at
-- this moment, that is gone, or whose schema is another one gets null and nothing is stored in it, so publish_messages has to say why.
create or replace function fastpubsub.publish_to_topics(
    p_topic_keys bigint [],
    p_schema_versions bigint [],
    p_offsets integer [],
    p_places integer [],
    p_payloads json [],
    p_attributes jsonb [] default null,
    p_now timestamptz default null,
    out first_positions bigint [],
    out created_at timestamptz []
)
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
    v_places bigint [];
    v_now timestamptz;
begin
    perform fastpubsub.begin_call(true);
    with locked as materialized (
        select u.place
        from unnest(p_topic_keys, p_schema_versions) with ordinality as u (topic_key, schema_version, place)
        inner join fastpubsub.heads as h on h.topic_key = u.topic_key and h.schema_version = u.schema_version
        for no key update of h skip locked
    )

    select array_agg(l.place) into v_places
    from locked as l;
    v_now := date_trunc('milliseconds', coalesce(p_now, clock_timestamp()));
    select
        array_agg(case when u.place = any(v_places) then coalesce(m.position + 1, 1) end order by u.place),
        array_agg(case when u.place = any(v_places) then greatest(v_now, m.created_at) end order by u.place)
    into publish_to_topics.first_positions, publish_to_topics.created_at
    from unnest(p_topic_keys) with ordinality as u (topic_key, place)
    left join lateral (
        select m.position, m.created_at from fastpubsub.messages as m where m.topic_key = u.topic_key order by m.position desc limit 1
    ) as m on true;
    insert into fastpubsub.messages (topic_key, position, created_at, payload, attributes)
    select
        p_topic_keys[u.place],
        publish_to_topics.first_positions[u.place] + u.ordinal - 1 - p_offsets[u.place],
        publish_to_topics.created_at[u.place],
        u.payload,
        u.attributes
    from unnest(p_payloads, p_attributes, p_places) with ordinality as u (payload, attributes, place, ordinal)
    where publish_to_topics.first_positions[u.place] is not null;
end;
$$;

-- functions/purge_dead_letters.sql
-- Deletes dead letters for good. Returns the positions that went.
create or replace function fastpubsub.purge_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_created_at timestamptz []
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where d.created_at = i.created_at
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
    end loop;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_positions)
    );
    return v_positions;
end;
$$;

-- functions/read_log.sql
-- The messages of a topic in (p_after, p_to], in order; as many as have p_max_bytes together, and the first one whatever its size
-- where p_at_least_one.
create or replace function fastpubsub.read_log(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_to bigint := p_to;
begin
    -- Sizes first: they are read without the payloads that are stored out of line.
    if (
        select sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) > p_max_bytes
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
    ) then
        select coalesce(max(s.position), p_after) into v_to
        from (
            select
                m.position, row_number() over (order by m.position) as ordinal,
                sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
            from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        ) as s
        where s.running <= p_max_bytes or (p_at_least_one and s.ordinal = 1);
    end if;
    select array_agg(m.position), array_agg(m.created_at), array_agg(m.payload), array_agg(m.attributes)
    into read_log.positions, read_log.created_at, read_log.payloads, read_log.attributes
    from (
        select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= v_to
        order by m.position
    ) as m;
end;
$$;

-- functions/read_matching_log.sql
-- The messages after p_after that a filter matches, bounded like scan_log, and by bytes like read_log. `scanned` is how far the cursor
-- can go: what lies behind it and is not in `positions` does not match. What the filter cannot read is in `unreadable`.
create or replace function fastpubsub.read_matching_log(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_rows bigint,
    p_milliseconds integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out scanned bigint,
    out unreadable bigint [],
    out unreadable_created_at timestamptz []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_found record;
begin
    v_found := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, p_limit, p_rows, p_milliseconds);
    scanned := v_found.scanned;
    if cardinality(v_found.unreadable) > 0 then
        select array_agg(m.position), array_agg(m.created_at)
        into read_matching_log.unreadable, read_matching_log.unreadable_created_at
        from unnest(v_found.unreadable) as u (position)
        cross join lateral (
            select m.position, m.created_at from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = u.position
            limit 1
        ) as m;
    end if;
    select array_agg(t.position), array_agg(t.created_at), array_agg(t.payload), array_agg(t.attributes)
    into read_matching_log.positions, read_matching_log.created_at, read_matching_log.payloads, read_matching_log.attributes
    from (
        select
            m.position, m.created_at, m.payload, m.attributes,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running,
            row_number() over (order by m.position) as ordinal
        from unnest(v_found.positions) as p (position)
        cross join lateral (
            select m.position, m.created_at, m.payload, m.attributes from fastpubsub.messages as m
            where m.topic_key = p_topic_key and m.position = p.position
            limit 1
        ) as m
        order by m.position
    ) as t
    where t.running <= p_max_bytes or (p_at_least_one and t.ordinal = 1);
    if coalesce(cardinality(read_matching_log.positions), 0) < cardinality(v_found.positions) then
        scanned := coalesce(read_matching_log.positions[cardinality(read_matching_log.positions)], p_after);
    end if;
end;
$$;

-- functions/read_messages.sql
-- For who follows a topic: up to p_limit messages after p_after, without a lease, bounded by bytes (the first always comes). With a null
-- p_after only `last`, the newest position. `missed`: trimming took messages after p_after before they were read.
create or replace function fastpubsub.read_messages(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    out last bigint,
    out missed boolean,
    out positions bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb []
)
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
    v_after bigint := p_after;
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    last := fastpubsub.last_position(p_topic_key);
    missed := false;
    if v_after is null or v_after >= read_messages.last then
        return;
    end if;
    if
        not exists (select from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_after + 1)
    then
        missed := true;
        v_after := fastpubsub.first_position(p_topic_key, read_messages.last) - 1;
    end if;
    select
        array_agg(t.position order by t.position), array_agg(t.created_at order by t.position),
        array_agg(t.payload order by t.position), array_agg(t.attributes order by t.position)
    into read_messages.positions, read_messages.created_at, read_messages.payloads, read_messages.attributes
    from (
        select
            m.position, m.created_at, m.payload, m.attributes,
            sum(pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0)) over (order by m.position) as running
        from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > v_after and m.position <= v_after + p_limit
        order by m.position
    ) as t
    where t.running <= p_max_bytes or t.position = v_after + 1;
end;
$$;

-- functions/reject_messages.sql
-- Dead at once, whatever attempts are left, each run of ids with its reason. Per id: 1 settled, 0 gone, 2 stale (see take_leases).
create or replace function fastpubsub.reject_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_reasons text [],
    p_lengths integer [] default null,
    p_now timestamptz default null
) returns smallint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
    if v_taken.positions is not null then
        perform fastpubsub.requeue_messages(
            p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions, v_taken.attempts, null,
            (
                select array_agg(coalesce(p_reasons[t.run], 'rejected') order by t.ordinal)
                from unnest(v_taken.ordinals) with ordinality as t (run, ordinal)
            ),
            'rejected', coalesce(p_now, clock_timestamp())
        );
    end if;
    return v_taken.outcomes;
end;
$$;

-- functions/relay_messages.sql
-- Moves rows of the outbox to the end of their topic, in the order of (transaction, ordinal): in one transaction, so each arrives once.
-- Rows that are gone were moved by somebody else. `moved` is null when another process is moving at this moment; what belonged to a topic
-- that was deleted since is deleted and counted in `dropped`.
create or replace function fastpubsub.relay_messages(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_now timestamptz default null,
    out topic_id text,
    out moved integer,
    out dropped integer
)
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
    v_payloads json [];
    v_attributes jsonb [];
begin
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('relay_messages', false) then
        return;
    end if;
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if found then
        select t.id into relay_messages.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
    end if;
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        where
            o.transaction_id = u.transaction_id::text::xid8 and o.ordinal = u.ordinal
            and o.topic_key = p_topic_key
        returning o.transaction_id, o.ordinal, o.payload, o.attributes
    )

    select
        array_agg(t.payload order by t.transaction_id, t.ordinal),
        array_agg(t.attributes order by t.transaction_id, t.ordinal)
    into v_payloads, v_attributes
    from taken as t;
    moved := coalesce(cardinality(v_payloads), 0);
    dropped := 0;
    if topic_id is null then
        dropped := moved;
        moved := 0;
    elsif moved > 0 then
        perform fastpubsub.publish_messages(p_topic_key, v_payloads, v_attributes, null, p_now);
    end if;
end;
$$;

-- functions/release_expired_leases.sql
-- Ends leases of one subscription that are past their deadline, until they hold p_limit messages: these wait for a retry, or die after
-- the last attempt.
-- Rows that somebody settles or extends at this moment are left alone; exactly what was locked is deleted.
create or replace function fastpubsub.release_expired_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look_back_seconds double precision default null,
    p_limit integer default 1000,
    p_wait boolean default false,
    p_now timestamptz default null,
    out released integer,
    out died integer
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
    v_now timestamptz;
    v_lease record;
    v_positions bigint [];
    v_lasts bigint [];
    v_attempts integer [];
begin
    released := 0;
    died := 0;
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('release_expired_leases', p_wait) then
        return;
    end if;
    perform from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    for no key update;
    if not found then
        return;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    -- Without sorting, the order can only come from the index on the deadlines; the other one leads over what others deleted.
    for v_lease in
        select l.position, l.last_position, l.attempts from fastpubsub.leases as l
        where
            l.expires_at > coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity') and l.expires_at <= v_now
            and l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        order by l.expires_at
        limit p_limit
        for update skip locked
    loop
        delete from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
        v_positions := v_positions || v_lease.position;
        v_lasts := v_lasts || v_lease.last_position;
        v_attempts := v_attempts || v_lease.attempts;
        released := release_expired_leases.released + (v_lease.last_position - v_lease.position + 1);
        exit when release_expired_leases.released >= p_limit;
    end loop;
    if v_positions is null then
        return;
    end if;
    died := fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_positions, v_lasts, v_attempts, null, null, 'lease expired', v_now
    );
end;
$$;

-- functions/reprocess_dead_letters.sql
-- Moves dead letters back: their copy goes to `revived`, due at once, attempts start again at 1. Where a seek made the message
-- come again anyway (it is ahead of the cursor, leased or waiting) only the dead letter goes, and counts as purged; one ahead that
-- the filter would skip stays dead. Returns the positions that are no longer dead.
create or replace function fastpubsub.reprocess_dead_letters(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_created_at timestamptz [],
    p_now timestamptz default null
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_settings fastpubsub.cursors;
    v_cursor fastpubsub.claims;
    v_positions bigint [];
    v_position bigint;
    v_coming bigint [];
begin
    perform fastpubsub.begin_call(true);
    v_settings := fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    select array_agg(t.position) into v_positions
    from (
        select distinct d.position
        from unnest(p_positions, p_created_at) as i (position, created_at)
        cross join lateral (
            select d.position, d.created_at, d.payload from fastpubsub.dead_letters as d
            where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = i.position
            limit 1
        ) as d
        where
            d.created_at = i.created_at
            and case
                when d.position <= v_cursor.position or v_settings.filter_path is null then true
                else (
                    select f.positions is not null
                    from fastpubsub.matching_positions(p_topic_key, d.position - 1, d.position, v_settings.filter_path, 1) as f
                )
            end
        order by d.position
    ) as t;
    if v_positions is null then
        return '{}';
    end if;
    select coalesce(array_agg(t.position), '{}') into v_coming
    from (
        select p as position from unnest(v_positions) as p where p > v_cursor.position
        union
        select p from unnest(v_positions) as p
        cross join lateral (
            select l.last_position from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position <= p and l.position > p - 100
            order by l.position desc
            limit 1
        ) as l
        where l.last_position >= p
        union
        select r.position from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.position = any(v_positions)
    ) as t;
    insert into fastpubsub.revived (topic_key, subscription_key, position, created_at, payload, attributes)
    select d.topic_key, d.subscription_key, d.position, d.created_at, d.payload, d.attributes
    from unnest(v_positions) as p
    cross join lateral (
        select d.* from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p
        limit 1
    ) as d
    where p <> all(v_coming);
    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts)
    select
        p_topic_key, p_subscription_key,
        greatest(coalesce(p_now, clock_timestamp()), v_cursor.retry_due_at + interval '1 microsecond'), p, 0
    from unnest(v_positions) as p
    where p <> all(v_coming);
    foreach v_position in array v_positions loop
        delete from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = v_position;
    end loop;
    if cardinality(v_coming) > 0 then
        perform fastpubsub.move_cursor(
            p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + cardinality(v_coming)
        );
    end if;
    return v_positions;
end;
$$;

-- functions/requeue_messages.sql
-- What becomes of deliveries that ended without an ack, in runs from p_positions to p_last_positions; the caller holds the cursor and
-- has deleted the leases. A message with attempts left waits for p_delay_seconds (null: the backoff), others and those with a p_reasons
-- die. Returns how many died.
create or replace function fastpubsub.requeue_messages(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_last_positions bigint [],
    p_attempts integer [],
    p_delay_seconds integer [],
    p_reasons text [],
    p_cause text,
    p_now timestamptz
) returns integer
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
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
    v_delay_seconds integer [];
    v_reasons text [];
begin
    select array_agg(p), array_agg(r.attempts), array_agg(r.delay_seconds), array_agg(r.reason)
    into v_positions, v_attempts, v_delay_seconds, v_reasons
    from unnest(p_positions, p_last_positions, p_attempts, p_delay_seconds, p_reasons)
        as r (position, last_position, attempts, delay_seconds, reason)
    cross join lateral generate_series(r.position, r.last_position) as p;
    select c.* into v_settings from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;

    insert into fastpubsub.retries (topic_key, subscription_key, due_at, position, attempts)
    select
        p_topic_key, p_subscription_key,
        greatest(
            p_now + make_interval(secs => coalesce(
                u.delay_seconds,
                least(v_settings.backoff_max_seconds, v_settings.backoff_min_seconds * 2.0 ^ least(greatest(u.attempts, 1) - 1, 40))
            )),
            v_cursor.retry_due_at + interval '1 microsecond'
        ),
        u.position, u.attempts
    from unnest(v_positions, v_attempts, v_delay_seconds, v_reasons) as u (position, attempts, delay_seconds, reason)
    where u.attempts < v_settings.max_delivery_attempts and u.reason is null
    order by u.position;

    select array_agg(u.position) into v_dead
    from unnest(v_positions, v_attempts, v_reasons) as u (position, attempts, reason)
    where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null;
    if v_dead is null then
        return 0;
    end if;
    -- After a seek a message can die again: its older dead letter is replaced, and counts as purged.
    select count(*) into v_replaced
    from unnest(v_dead) as p (position)
    cross join lateral (
        select from fastpubsub.dead_letters as d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p.position
        limit 1
    ) as d;
    insert into fastpubsub.dead_letters as d (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes
    )
    select
        p_topic_key, p_subscription_key, u.position, coalesce(m.created_at, v.created_at), p_now, u.attempts,
        coalesce(u.reason, format('%s on delivery attempt %s of %s', p_cause, u.attempts, v_settings.max_delivery_attempts)),
        coalesce(m.payload, v.payload), coalesce(m.attributes, v.attributes)
    from (
        select u.position, u.attempts, u.reason
        from unnest(v_positions, v_attempts, v_reasons) as u (position, attempts, reason)
        where u.attempts >= v_settings.max_delivery_attempts or u.reason is not null
        order by u.position
    ) as u
    left join lateral (
        select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position = u.position
        limit 1
    ) as m on true
    left join lateral (
        select v.created_at, v.payload, v.attributes from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = u.position
        limit 1
    ) as v on true
    on conflict (topic_key, subscription_key, position) do update set
        died_at = excluded.died_at, attempts = excluded.attempts, reason = excluded.reason;
    get diagnostics v_died = row_count;
    foreach v_position in array v_dead loop
        delete from fastpubsub.revived as v
        where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = v_position;
    end loop;
    if v_replaced > 0 then
        perform fastpubsub.move_cursor(p_topic_key, p_subscription_key, v_cursor.position, v_cursor.routed, v_cursor.purged + v_replaced);
    end if;
    return v_died;
end;
$$;

-- functions/require_subscription.sql
create or replace function fastpubsub.require_subscription(p_topic_key bigint, p_subscription_key bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
    perform from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
end;
$$;

-- functions/resolve_subscription.sql
create or replace function fastpubsub.resolve_subscription(p_id text, out topic_key bigint, out subscription_key bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select s.topic_key, s.subscription_key
    into resolve_subscription.topic_key, resolve_subscription.subscription_key
    from fastpubsub.subscriptions as s where s.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/resolve_topic.sql
create or replace function fastpubsub.resolve_topic(p_id text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topic_key bigint;
begin
    select t.topic_key into v_topic_key from fastpubsub.topics as t where t.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
    return v_topic_key;
end;
$$;

-- functions/return_leases.sql
-- Gives back what one claim leased to a consumer that never got a byte of it: due at once, without the attempt.
create or replace function fastpubsub.return_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_token bigint,
    p_now timestamptz default null
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(
        p_topic_key, p_subscription_key, p_positions, array_fill(p_token, array[cardinality(p_positions)]), null
    );
    if v_taken.positions is null then
        return 0;
    end if;
    perform fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions,
        (select array_agg(t.attempts - 1 order by t.ordinal) from unnest(v_taken.attempts) with ordinality as t (attempts, ordinal)),
        array_fill(0, array[cardinality(v_taken.positions)]), null, 'returned', coalesce(p_now, clock_timestamp())
    );
    return (select sum(t.last_position - t.position + 1) from unnest(v_taken.positions, v_taken.last_positions) as t (position, last_position));
end;
$$;

-- functions/revoke_client_secret.sql
-- Ends one of the two secrets of a client, and all of its tokens, for nobody knows which secret they are from: the old one, or the
-- newest, which leaves the old one without an end. FP409 when there are not two. p_granted as in update_client.
create or replace function fastpubsub.revoke_client_secret(
    p_id uuid, p_newest boolean, p_granted text[] default null, p_now timestamptz default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz;
    v_scopes text;
    v_expires_at timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes, c.old_secret_expires_at into v_scopes, v_expires_at
    from fastpubsub.clients as c where c.id = p_id for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you lack; only who has them may change it', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if v_expires_at is null or v_expires_at <= v_now then
        raise exception using errcode = 'FP409', message = format('client "%s" has one secret only; give it another first', p_id);
    end if;
    update fastpubsub.clients as c set
        secret_hash = case when p_newest then c.old_secret_hash else c.secret_hash end,
        old_secret_hash = null,
        old_secret_expires_at = null,
        token_version = c.token_version + 1,
        updated_at = v_now
    where c.id = p_id;
end;
$$;

-- functions/rotate_client_secret.sql
-- Gives the client another secret. The one before it lives on for p_old_seconds, and tokens stay good; with 0 every secret before ends
-- now, and all tokens with them. FP409 while two are good: ending one of them unasked could end the one in use. p_granted as in
-- update_client.
create or replace function fastpubsub.rotate_client_secret(
    p_id uuid,
    p_secret_hash text,
    p_old_seconds integer,
    p_granted text[] default null,
    p_now timestamptz default null,
    out old_secret_expires_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_scopes text;
    v_expires_at timestamptz;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes, c.old_secret_expires_at into v_scopes, v_expires_at
    from fastpubsub.clients as c where c.id = p_id for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you lack; only who has them may change it', p_id);
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    if p_old_seconds > 0 then
        if v_expires_at > v_now then
            raise exception using
                errcode = 'FP409',
                message = format('client "%s" has two secrets already; end the old or the new one first, or both with old_secret_seconds 0', p_id);
        end if;
        rotate_client_secret.old_secret_expires_at := v_now + make_interval(secs => p_old_seconds);
    end if;
    update fastpubsub.clients as c set
        secret_hash = p_secret_hash,
        old_secret_hash = case when p_old_seconds > 0 then c.secret_hash end,
        old_secret_expires_at = rotate_client_secret.old_secret_expires_at,
        token_version = c.token_version + case when p_old_seconds > 0 then 0 else 1 end,
        updated_at = v_now
    where c.id = p_id;
end;
$$;

-- functions/scan_log.sql
-- Looks at the log after p_after for up to p_limit matching messages, bounded by rows, bytes and time; `scanned` is how far it came:
-- what lies behind it and is not in `positions` does not match.
create or replace function fastpubsub.scan_log(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_rows bigint,
    p_milliseconds integer,
    out positions bigint [],
    out scanned bigint,
    out unreadable bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_step_bytes constant bigint := 1048576;
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
    v_step bigint := 256;
    v_started timestamptz;
    v_to bigint;
    v_found record;
begin
    positions := '{}';
    unreadable := '{}';
    scanned := p_after;
    loop
        v_started := clock_timestamp();
        select max(s.position) into v_to
        from (
            select m.position, sum(pg_column_size(m.payload)) over (order by m.position) - pg_column_size(m.payload) as before
            from fastpubsub.messages as m
            where
                m.topic_key = p_topic_key and m.position > scan_log.scanned
                and m.position <= least(p_last, scan_log.scanned + v_step, p_after + p_rows)
        ) as s
        where s.before < c_step_bytes;
        exit when v_to is null;
        v_found := fastpubsub.matching_positions(
            p_topic_key, scan_log.scanned, v_to, p_path, p_limit - cardinality(scan_log.positions)
        );
        positions := scan_log.positions || v_found.positions;
        unreadable := scan_log.unreadable || v_found.unreadable;
        if cardinality(scan_log.positions) >= p_limit then
            scanned := scan_log.positions[p_limit];
            exit;
        end if;
        scanned := v_to;
        exit when scan_log.scanned >= least(p_last, p_after + p_rows) or clock_timestamp() >= v_until;
        if clock_timestamp() - v_started < interval '2 milliseconds' then
            v_step := least(v_step * 2, 4096);
        elsif clock_timestamp() - v_started > interval '5 milliseconds' then
            v_step := greatest(v_step / 2, 16);
        end if;
    end loop;
end;
$$;

-- functions/schema_version.sql
-- What tells schemas of a topic apart: a hash of the text, so that an older one that comes back is the same again; 0 for none.
create or replace function fastpubsub.schema_version(p_schema json) returns bigint
language plpgsql immutable as $$
begin
    return case when p_schema is null then 0 else coalesce(nullif(hashtextextended(p_schema::text, 0), 0), 1) end;
end;
$$;

-- functions/scopes_cover.sql
-- Whether who holds p_granted may change a client with p_scopes (separated by spaces): each scope itself, its global form, or `*`.
-- Null grants everything.
create or replace function fastpubsub.scopes_cover(p_granted text[], p_scopes text) returns boolean
language plpgsql immutable as $$
begin
    return p_granted is null
        or '*' = any(p_granted)
        or not exists (
            select from unnest(string_to_array(p_scopes, ' ')) as w (scope)
            where not (
                w.scope = any(p_granted)
                or split_part(w.scope, ':', 1) || ':' || split_part(w.scope, ':', 2) = any(p_granted)
            )
        );
end;
$$;

-- functions/seek_subscription.sql
-- Puts the cursor elsewhere: p_to is 'earliest', 'latest', 'time' (p_time: the first message from then on comes next) or 'message'
-- (p_position comes next). Leases and waiting retries end, so old ack ids become stale; dead letters stay, and a reprocessed one that
-- was not settled yet is a dead letter again, because its message may be trimmed. `acked` does not change.
create or replace function fastpubsub.seek_subscription(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_to text,
    p_time timestamptz default null,
    p_position bigint default null,
    p_now timestamptz default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_last bigint;
    v_position bigint;
    v_leased bigint;
    v_waiting bigint;
    v_revived bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_last := fastpubsub.last_position(p_topic_key);
    v_position := case p_to
        when 'latest' then v_last
        when 'time' then fastpubsub.position_before(p_topic_key, p_time)
        when 'message' then greatest(least(p_position, v_last + 1), fastpubsub.first_position(p_topic_key, v_last)) - 1
        else fastpubsub.first_position(p_topic_key, v_last) - 1
    end;
    -- An empty topic has no position before its first.
    v_position := greatest(v_position, 0);
    with ended as (
        delete from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
        returning l.position, l.last_position
    )
    select coalesce(sum(e.last_position - e.position + 1), 0) into v_leased from ended as e;
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    get diagnostics v_waiting = row_count;
    with moved as (
        delete from fastpubsub.revived as v where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
        returning v.*
    )
    insert into fastpubsub.dead_letters (
        topic_key, subscription_key, position, created_at, died_at, attempts, reason, payload, attributes
    )
    select
        m.topic_key, m.subscription_key, m.position, m.created_at, coalesce(p_now, clock_timestamp()), 0,
        'the subscription was sought elsewhere before the reprocessed message was settled', m.payload, m.attributes
    from moved as m
    on conflict (topic_key, subscription_key, position) do nothing;
    get diagnostics v_revived = row_count;
    perform fastpubsub.move_cursor(
        p_topic_key, p_subscription_key, v_position, v_cursor.routed - v_leased - v_waiting + v_revived, v_cursor.purged
    );
end;
$$;

-- functions/subscription_metrics.sql
-- ahead + waiting, leased, dead and acked add up to what was routed. For a filtered subscription at most p_look messages are judged;
-- beyond them `ahead` is the share that matched so far, and `estimated` says so.
create or replace function fastpubsub.subscription_metrics(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_look bigint default 10000,
    out ahead bigint,
    out waiting bigint,
    out leased bigint,
    out dead bigint,
    out acked bigint,
    out estimated boolean,
    out oldest_created_at timestamptz
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_cursor fastpubsub.claims;
    v_path jsonpath;
    v_last bigint;
    v_log record;
begin
    select c.filter_path into v_path from fastpubsub.cursors as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select c.* into v_cursor from fastpubsub.claims as c
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    v_last := fastpubsub.last_position(p_topic_key);
    ahead := greatest(v_last - v_cursor.position, 0);
    estimated := false;
    if v_path is not null and subscription_metrics.ahead > 0 then
        select s.positions, s.scanned into v_log
        from fastpubsub.scan_log(p_topic_key, v_cursor.position, v_last, v_path, p_look::integer, p_look, 100) as s;
        estimated := v_log.scanned < v_last;
        ahead := cardinality(v_log.positions);
        if subscription_metrics.estimated then
            ahead := subscription_metrics.ahead * (v_last - v_cursor.position) / greatest(v_log.scanned - v_cursor.position, 1);
        end if;
    end if;
    select count(*) into waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position);
    select coalesce(sum(l.last_position - l.position + 1), 0) into leased from fastpubsub.leases as l
    where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into dead from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key;
    acked := v_cursor.routed - subscription_metrics.waiting - subscription_metrics.leased - subscription_metrics.dead
        - v_cursor.purged - v_cursor.dropped;
    -- The oldest message that waits for its first delivery.
    select m.created_at into oldest_created_at
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_cursor.position + 1;
end;
$$;

-- functions/take_due_retries.sql
-- Takes up to p_limit retries that are due at p_now, in the order of (due_at, position) after the floor, with their messages; as many
-- as have p_max_bytes together, at least one. `due_at` is that of the last one: with its position, the next floor.
create or replace function fastpubsub.take_due_retries(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_floor_due_at timestamptz,
    p_floor_position bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out revived boolean [],
    out due_at timestamptz,
    out size bigint
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_due_at timestamptz [];
    v_missing integer;
begin
    select
        array_agg(t.due_at), array_agg(t.position), array_agg(t.attempts + 1), array_agg(t.created_at), array_agg(t.payload),
        array_agg(t.attributes), array_agg(t.revived), sum(t.size)
    into
        v_due_at, take_due_retries.positions, take_due_retries.attempts, take_due_retries.created_at, take_due_retries.payloads,
        take_due_retries.attributes, take_due_retries.revived, take_due_retries.size
    from (
        select
            w.*, sum(w.size) over (order by w.due_at, w.position) as running,
            row_number() over (order by w.due_at, w.position) as ordinal
        from (
            select
                r.due_at, r.position, r.attempts, v.position is not null as revived,
                coalesce(m.created_at, v.created_at) as created_at, coalesce(m.payload, v.payload) as payload,
                coalesce(m.attributes, v.attributes) as attributes,
                pg_column_size(coalesce(m.payload, v.payload))
                + coalesce(pg_column_size(coalesce(m.attributes, v.attributes)), 0) as size
            from (
                select r.due_at, r.position, r.attempts from fastpubsub.retries as r
                where
                    r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
                    and (r.due_at, r.position) > (p_floor_due_at, p_floor_position) and r.due_at <= p_now
                order by r.due_at, r.position
                limit p_limit
            ) as r
            left join lateral (
                select m.created_at, m.payload, m.attributes from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = r.position
                limit 1
            ) as m on true
            left join lateral (
                select v.position, v.created_at, v.payload, v.attributes from fastpubsub.revived as v
                where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = r.position
                limit 1
            ) as v on true
        ) as w
        order by w.due_at, w.position
    ) as t
    where t.running <= p_max_bytes or t.ordinal = 1 or t.payload is null;
    v_missing := array_position(take_due_retries.created_at, null);
    if v_missing is not null then
        raise exception using
            errcode = 'FP500',
            message = format(
                'position %s of topic_key %s waits for subscription_key %s and has no payload',
                take_due_retries.positions[v_missing], p_topic_key, p_subscription_key
            );
    end if;
    due_at := v_due_at[cardinality(v_due_at)];
    delete from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (p_floor_due_at, p_floor_position)
        and (r.due_at, r.position) <= (take_due_retries.due_at, take_due_retries.positions[cardinality(v_due_at)]);
end;
$$;

-- functions/take_leases.sql
-- Ends the deliveries that the caller may settle. Ids come in runs: p_lengths (null: 1 each) consecutive positions from p_positions on
-- with one token, or with none and one time of creation: bare message ids, which settle whoever holds the message. What is taken comes
-- out in runs too, with `ordinals` that tell which run of the caller settled each. `outcomes` says of every id, in the order of the
-- runs: 1 settled by this call, 0 gone (no delivery any more), 2 stale (somebody else holds it).
--
-- Runs that consist of whole leases are deleted without the cursor's lock, in position order. Anything else cuts leases, and holds it.
create or replace function fastpubsub.take_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_tokens bigint [],
    p_created_at timestamptz [],
    p_lengths integer [] default null,
    out positions bigint [],
    out last_positions bigint [],
    out tokens bigint [],
    out attempts integer [],
    out revived boolean [],
    out consumer_ids text [],
    out ordinals integer [],
    out outcomes smallint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- Runs that are further apart are looked up one by one, not by a walk over what lies between them.
    c_gap constant bigint := 64;
    v_positions bigint [];
    v_lasts bigint [];
    v_tokens bigint [];
    v_ordinals integer [];
    v_ends integer [];
    v_count bigint;
    v_whole boolean;
    v_start integer := 1;
    v_end integer;
    v_taken record;
begin
    select
        array_agg(r.position), array_agg(r.last_position), array_agg(r.token), array_agg(r.ordinal),
        array_agg(r.place) filter (where r.distance > c_gap or r.distance is null), sum(r.last_position - r.position + 1),
        bool_and(r.is_whole and (r.distance > 0 or r.distance is null))
    into v_positions, v_lasts, v_tokens, v_ordinals, v_ends, v_count, v_whole
    from (
        select
            r.position, r.last_position, r.token, r.ordinal, row_number() over (order by r.position, r.ordinal) as place,
            lead(r.position) over (order by r.position, r.ordinal) - r.last_position as distance,
            r.last_position - r.position + 1 = (
                select coalesce(sum(l.last_position - l.position + 1), 0) from fastpubsub.leases as l
                where
                    l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                    and l.position >= r.position and l.position <= r.last_position and l.last_position <= r.last_position
                    and case
                        when r.token is not null then l.token = r.token
                        else fastpubsub.were_created_at(
                            p_topic_key, p_subscription_key, l.position, l.last_position, l.revived, r.created_at
                        )
                    end
            ) as is_whole
        from (
            select r.position, r.position + coalesce(r.length, 1) - 1 as last_position, r.token, r.created_at, r.ordinal
            from unnest(p_positions, p_lengths, p_tokens, p_created_at)
                with ordinality as r (position, length, token, created_at, ordinal)
        ) as r
        order by r.position, r.ordinal
    ) as r;
    if v_whole is not true then
        perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
        v_taken := fastpubsub.cut_leases(p_topic_key, p_subscription_key, p_positions, p_tokens, p_created_at, p_lengths);
        positions := v_taken.positions;
        last_positions := v_taken.positions;
        tokens := v_taken.tokens;
        attempts := v_taken.attempts;
        revived := v_taken.revived;
        consumer_ids := v_taken.consumer_ids;
        ordinals := v_taken.ordinals;
        outcomes := v_taken.outcomes;
        return;
    end if;
    -- A join with the ids would be planned by statistics that lie, and so would `any` before PostgreSQL 17: a stretch of the key never
    -- is. The runs are sorted, so width_bucket finds that of a lease by binary search.
    foreach v_end in array v_ends loop
        with taken as (
            delete from fastpubsub.leases as l
            where
                l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
                and l.position >= v_positions[v_start] and l.position <= v_lasts[v_end]
                and l.last_position <= v_lasts[width_bucket(l.position, v_positions)]
                and coalesce(l.token = v_tokens[width_bucket(l.position, v_positions)], true)
            returning l.position, l.last_position, l.token, l.attempts, l.revived, l.consumer_id
        )
        select
            array_agg(t.position) as positions, array_agg(t.last_position) as last_positions, array_agg(t.token) as tokens,
            array_agg(t.attempts) as attempts, array_agg(t.revived) as revived, array_agg(t.consumer_id) as consumer_ids,
            array_agg(v_ordinals[width_bucket(t.position, v_positions)]) as ordinals
        into v_taken
        from taken as t;
        positions := take_leases.positions || v_taken.positions;
        last_positions := take_leases.last_positions || v_taken.last_positions;
        tokens := take_leases.tokens || v_taken.tokens;
        attempts := take_leases.attempts || v_taken.attempts;
        revived := take_leases.revived || v_taken.revived;
        consumer_ids := take_leases.consumer_ids || v_taken.consumer_ids;
        ordinals := take_leases.ordinals || v_taken.ordinals;
        v_start := v_end + 1;
    end loop;
    if
        v_count is distinct from (
            select sum(t.last_position - t.position + 1)
            from unnest(take_leases.positions, take_leases.last_positions) as t (position, last_position)
        )
    then
        raise exception using
            errcode = '40001', message = 'a delivery was settled, cut or extended by somebody else at the same moment';
    end if;
    outcomes := array_fill(1::smallint, array[v_count::integer]);
end;
$$;

-- functions/trim_claims.sql
-- Deletes up to p_limit rows of `claims` per subscription that are no longer the newest, and idempotency keys past their window.
create or replace function fastpubsub.trim_claims(
    p_topic_key bigint,
    p_window_seconds integer,
    p_limit integer default 5000,
    p_now timestamptz default null
) returns integer
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
    v_subscription record;
    v_low bigint;
    v_high bigint;
    v_middle bigint;
    v_newest bigint;
    v_rows integer;
    v_trimmed integer := 0;
    v_window timestamptz := coalesce(p_now, clock_timestamp()) - make_interval(secs => p_window_seconds);
begin
    perform fastpubsub.begin_call(false);
    for v_subscription in select c.subscription_key from fastpubsub.cursors as c where c.topic_key = p_topic_key loop
        select c.sequence into v_newest from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_low := 1;
        v_high := v_newest;
        while v_low < v_high loop
            v_middle := (v_low + v_high) / 2;
            if
                exists (
                    select from fastpubsub.claims as c
                    where
                        c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
                        and c.sequence = v_middle
                )
            then
                v_high := v_middle;
            else
                v_low := v_middle + 1;
            end if;
        end loop;
        delete from fastpubsub.claims as c
        where
            c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
            and c.sequence >= v_low and c.sequence < least(v_newest, v_low + p_limit);
        get diagnostics v_rows = row_count;
        v_trimmed := v_trimmed + v_rows;
    end loop;
    delete from fastpubsub.idempotency_keys as k
    using (
        select o.client, o.key from fastpubsub.idempotency_keys as o
        where
            o.topic_key = p_topic_key
            and o.created_at < v_window
        order by o.created_at
        limit p_limit
        for update skip locked
    ) as o
    where k.topic_key = p_topic_key and k.client = o.client and k.key = o.key;
    get diagnostics v_rows = row_count;
    return v_trimmed + v_rows;
end;
$$;

-- functions/trim_messages.sql
-- Deletes up to p_limit messages from the front of a topic: older than the retention (of the topic, else p_retention_seconds) and
-- below every cursor, every leased and every waiting position; never the newest. Returns how many went.
create or replace function fastpubsub.trim_messages(
    p_topic_key bigint,
    p_retention_seconds bigint,
    p_limit integer default 5000,
    p_wait boolean default false,
    p_now timestamptz default null
) returns integer
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
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_retention bigint;
    v_last bigint;
    v_first bigint;
    v_end bigint;
    v_pin bigint;
    v_subscription record;
    v_cursor fastpubsub.claims;
    v_trimmed integer;
begin
    perform fastpubsub.begin_call(false);
    if not fastpubsub.lock_job('trim_messages', p_wait) then
        return 0;
    end if;
    select coalesce(h.retention_seconds, p_retention_seconds) into v_retention from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        return 0;
    end if;
    v_last := fastpubsub.last_position(p_topic_key);
    v_first := fastpubsub.first_position(p_topic_key, v_last);
    -- Exclusive: the first position that stays.
    v_end := least(
        v_last, v_first + p_limit, fastpubsub.position_before(p_topic_key, v_now - make_interval(secs => v_retention)) + 1
    );
    -- A cursor is read with its lock held, so that no claim can lease below v_end behind our back and none can seek there.
    for v_subscription in
        select c.subscription_key from fastpubsub.cursors as c
        where c.topic_key = p_topic_key
        order by c.subscription_key
        for no key update
    loop
        exit when v_end <= v_first;
        select c.* into v_cursor from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_subscription.subscription_key
        order by c.sequence desc limit 1;
        v_end := least(v_end, v_cursor.position + 1);
        select min(l.position) into v_pin from fastpubsub.leases as l
        where
            l.topic_key = p_topic_key and l.subscription_key = v_subscription.subscription_key
            and l.position >= v_first and l.position < v_end;
        v_end := least(v_end, v_pin);
        -- What waits below v_first is a reprocessed dead letter with a copy of its own.
        select min(r.position) into v_pin from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = v_subscription.subscription_key
            and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position)
            and r.position >= v_first and r.position < v_end;
        v_end := least(v_end, v_pin);
    end loop;
    if v_end <= v_first then
        return 0;
    end if;
    delete from fastpubsub.messages as m
    where m.topic_key = p_topic_key and m.position >= v_first and m.position < v_end;
    get diagnostics v_trimmed = row_count;
    return v_trimmed;
end;
$$;

-- functions/update_client.sql
-- Every call ends all tokens of the client. p_is_active null keeps what is there; p_granted, when given, are the scopes of the
-- caller, who must cover what the client may do so far. Returns the client as it is now.
create or replace function fastpubsub.update_client(
    p_id uuid,
    p_name text,
    p_scopes text,
    p_is_active boolean default null,
    p_granted text[] default null,
    p_now timestamptz default null,
    out id uuid,
    out name text,
    out scopes text,
    out is_active boolean,
    out token_version bigint,
    out created_at timestamptz,
    out updated_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_scopes text;
begin
    perform fastpubsub.begin_call(true);
    select c.scopes into v_scopes from fastpubsub.clients as c where c.id = p_id for no key update;
    if not found then
        raise exception using errcode = 'FP404', message = format('client "%s" does not exist', p_id);
    end if;
    if not fastpubsub.scopes_cover(p_granted, v_scopes) then
        raise exception using errcode = 'FP403', message = format('client "%s" has scopes that you lack; only who has them may change it', p_id);
    end if;
    update fastpubsub.clients as c set
        name = p_name,
        scopes = p_scopes,
        is_active = coalesce(p_is_active, c.is_active),
        token_version = c.token_version + 1,
        updated_at = coalesce(p_now, clock_timestamp())
    where c.id = p_id
    returning c.id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    into update_client.id, update_client.name, update_client.scopes, update_client.is_active, update_client.token_version,
        update_client.created_at, update_client.updated_at;
end;
$$;

-- functions/update_subscription.sql
-- Null keeps what is there; p_change_filter tells a filter that is taken away from one that stays. What is ahead is judged by the
-- new filter, what the old one skipped does not come back.
create or replace function fastpubsub.update_subscription(
    p_id text,
    p_change_filter boolean default false,
    p_filter json default null,
    p_ack_deadline_seconds integer default null,
    p_max_delivery_attempts integer default null,
    p_backoff_min_seconds integer default null,
    p_backoff_max_seconds integer default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_cursor fastpubsub.cursors;
begin
    perform fastpubsub.begin_call(true);
    select c.* into v_cursor
    from fastpubsub.subscriptions as s
    inner join fastpubsub.cursors as c on s.topic_key = c.topic_key and s.subscription_key = c.subscription_key
    where s.id = p_id
    for no key update of c;
    if not found then
        raise exception using errcode = 'FP404', message = format('subscription "%s" does not exist', p_id);
    end if;
    if coalesce(p_backoff_max_seconds, v_cursor.backoff_max_seconds) < coalesce(p_backoff_min_seconds, v_cursor.backoff_min_seconds) then
        raise exception using errcode = 'FP422', message = 'backoff_max_seconds must not be below backoff_min_seconds';
    end if;
    update fastpubsub.cursors as c set
        filter_path = case when p_change_filter then v_path else c.filter_path end,
        ack_deadline_seconds = coalesce(p_ack_deadline_seconds, c.ack_deadline_seconds),
        max_delivery_attempts = coalesce(p_max_delivery_attempts, c.max_delivery_attempts),
        backoff_min_seconds = coalesce(p_backoff_min_seconds, c.backoff_min_seconds),
        backoff_max_seconds = coalesce(p_backoff_max_seconds, c.backoff_max_seconds)
    where c.topic_key = v_cursor.topic_key and c.subscription_key = v_cursor.subscription_key;
    if p_change_filter then
        update fastpubsub.subscriptions as s set filter = case when v_path is not null then p_filter end
        where s.subscription_key = v_cursor.subscription_key;
    end if;
end;
$$;

-- functions/update_topic.sql
create or replace function fastpubsub.update_topic(
    p_id text,
    p_retention_seconds bigint default null,
    p_change_retention boolean default true,
    p_schema json default null,
    p_change_schema boolean default false
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.begin_call(true);
    update fastpubsub.heads as h set
        retention_seconds = case when p_change_retention then p_retention_seconds else h.retention_seconds end,
        schema = case when p_change_schema then p_schema else h.schema end,
        schema_version = case when p_change_schema then fastpubsub.schema_version(p_schema) else h.schema_version end
    from fastpubsub.topics as t
    where t.id = p_id and h.topic_key = t.topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = format('topic "%s" does not exist', p_id);
    end if;
end;
$$;

-- functions/were_created_at.sql
-- Whether all messages of a lease were created at that time, as bare message ids say.
create or replace function fastpubsub.were_created_at(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint,
    p_last_position bigint,
    p_revived boolean,
    p_created_at timestamptz
) returns boolean
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
    if p_revived then
        return p_last_position - p_position + 1 = (
            select count(*) from fastpubsub.revived as v
            where
                v.topic_key = p_topic_key and v.subscription_key = p_subscription_key
                and v.position >= p_position and v.position <= p_last_position and v.created_at = p_created_at
        );
    end if;
    return p_last_position - p_position + 1 = (
        select count(*) from fastpubsub.messages as m
        where
            m.topic_key = p_topic_key and m.position >= p_position and m.position <= p_last_position
            and m.created_at = p_created_at
    );
end;
$$;
