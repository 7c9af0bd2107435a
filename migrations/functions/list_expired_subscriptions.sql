-- Lists up to p_limit subscriptions that nobody has used for as long as their setting says, for expire_subscription. One that is paused or
-- pushed, or whose messages a consumer holds, counts as used; and the time in which no server called this does not count.
-- p_topic_keys, when not null, holds the only topics whose nodes answer: for the others, the time since the call before does not count.
create or replace function fastpubsub.list_expired_subscriptions(
    p_limit integer default 100,
    p_now timestamptz default null,
    p_topic_keys bigint [] default null
)
returns table (topic_key bigint, subscription_key bigint, subscription_id text, expire_after_seconds integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_done_at timestamptz;
    v_unserved interval;
    v_use record;
    v_cursor fastpubsub.cursors;
    v_is_used boolean;
    v_listed integer := 0;
begin
    if not exists (select from fastpubsub.subscription_uses) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    if not fastpubsub.lock_job('expire_subscriptions', false) then
        return;
    end if;
    select j.done_at into v_done_at from fastpubsub.jobs as j where j.name = 'expire_subscriptions';
    update fastpubsub.jobs as j set done_at = v_now where j.name = 'expire_subscriptions';
    v_unserved := case when v_now > v_done_at + interval '5 minutes' then v_now - v_done_at end;
    for v_use in
        select u.topic_key, u.subscription_key, least(u.used_at + coalesce(v_unserved, '0'), v_now) as used_at
        from fastpubsub.subscription_uses as u
        order by u.used_at
    loop
        if v_unserved is not null then
            -- Unless it was used or changed since the loop began.
            update fastpubsub.subscription_uses as u set used_at = greatest(u.used_at, v_use.used_at)
            where u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
        end if;
        if v_use.topic_key <> all(p_topic_keys) then
            update fastpubsub.subscription_uses as u set used_at = least(u.used_at + (v_now - v_done_at), v_now)
            where v_unserved is null and u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
            continue;
        end if;
        select c.* into v_cursor from fastpubsub.cursors as c
        where c.topic_key = v_use.topic_key and c.subscription_key = v_use.subscription_key;
        continue when fastpubsub.expires_at(v_use.used_at, v_cursor.expire_after_seconds) <= v_now is not true;
        v_is_used := v_cursor.paused_at is not null or v_cursor.is_pushed is true;
        if not v_is_used then
            perform 1 from fastpubsub.leases as l
            where l.topic_key = v_use.topic_key and l.subscription_key = v_use.subscription_key
            limit 1;
            v_is_used := found;
        end if;
        if v_is_used then
            update fastpubsub.subscription_uses as u set used_at = greatest(u.used_at, v_now)
            where u.topic_key = v_use.topic_key and u.subscription_key = v_use.subscription_key;
            continue;
        end if;
        select s.id into list_expired_subscriptions.subscription_id from fastpubsub.subscriptions as s
        where s.subscription_key = v_use.subscription_key;
        continue when not found or v_listed >= p_limit;
        v_listed := v_listed + 1;
        topic_key := v_use.topic_key;
        subscription_key := v_use.subscription_key;
        expire_after_seconds := v_cursor.expire_after_seconds;
        return next;
    end loop;
end;
$$;
