-- Begins to reprocess or purge the dead letters that match. It leaves those alone that die later, so a message that dies again stays dead.
-- With a filter, dead letters are judged for p_milliseconds; if that does not suffice for all, `matched` is null.
-- The last p_keep ended redrives of the subscription are remembered.
create or replace function fastpubsub.create_redrive_2(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_action text,
    p_reason text,
    p_died_after timestamptz,
    p_died_before timestamptz,
    p_per_second integer,
    p_max_running integer,
    p_keep integer,
    p_now timestamptz default null,
    p_filter json default null,
    p_milliseconds integer default 250
) returns setof fastpubsub.redrives
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_died_before timestamptz := least(p_died_before, v_now);
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_until timestamptz;
    v_letter record;
    v_matched bigint;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    -- Before the lock, because it may take a while.
    if v_path is not null then
        v_until := clock_timestamp() + make_interval(secs => p_milliseconds / 1000.0);
        v_matched := 0;
        for v_letter in
            select d.payload, d.attributes, d.ordering_key from fastpubsub.dead_letters as d
            where
                d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
                and (p_reason is null or d.reason = p_reason)
                and (p_died_after is null or d.died_at >= p_died_after) and d.died_at < v_died_before
            order by d.position
        loop
            if clock_timestamp() >= v_until then
                v_matched := null;
                exit;
            elsif
                fastpubsub.is_found(v_letter.payload, v_letter.attributes, v_path, null, null, null, v_letter.ordering_key)
            then
                v_matched := v_matched + 1;
            end if;
        end loop;
    else
        select count(*) into v_matched
        from fastpubsub.dead_letters as d
        where
            d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
            and (p_reason is null or d.reason = p_reason)
            and (p_died_after is null or d.died_at >= p_died_after) and d.died_at < v_died_before;
    end if;
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    if (
        select count(*) >= p_max_running from fastpubsub.redrives as r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.state = 'running'
    ) then
        raise exception using
            errcode = 'FP409',
            message = format('%s redrives of the subscription are running: wait for one, or cancel it', p_max_running);
    end if;
    delete from fastpubsub.redrives as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.state <> 'running'
        and r.redrive_key <= (
            select o.redrive_key from fastpubsub.redrives as o
            where o.topic_key = p_topic_key and o.subscription_key = p_subscription_key and o.state <> 'running'
            order by o.redrive_key desc
            offset p_keep
            limit 1
        );
    return query
    insert into fastpubsub.redrives as r (
        topic_key, subscription_key, action, reason, died_after, died_before, per_second, matched, stepped_at, created_at, filter
    )
    values (
        p_topic_key, p_subscription_key, p_action, p_reason, p_died_after, v_died_before, p_per_second, v_matched, v_now, v_now,
        case when v_path is not null then p_filter end
    )
    returning r.*;
end;
$$;
