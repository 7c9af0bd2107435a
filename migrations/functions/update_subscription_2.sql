-- A null parameter keeps the present value; p_change_filter tells a filter that is removed from one that stays. The new filter judges the
-- messages ahead; messages that the old one skipped do not come back. p_push is that of set_push, whose answer is `is_new_secret`;
-- p_max_in_flight, p_rate_limit, p_expire_after_seconds, p_max_backlog or p_backoff_jitter of 0 removes it,
-- p_dead_letter_topic of '' that topic. With p_expire_after_seconds the time until it expires begins anew. p_on_dead_letter counts for
-- dead letters from now on.
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
    p_backoff_jitter double precision default null,
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
        on_full = coalesce(p_on_full, c.on_full),
        backoff_jitter = nullif(coalesce(p_backoff_jitter, c.backoff_jitter), 0)
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
