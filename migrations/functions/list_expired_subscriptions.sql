-- Lists up to p_limit subscriptions that nobody has used for as long as their setting says, for expire_subscription. One that is paused or
-- pushed, or whose messages a consumer holds, counts as used; and the time in which no server called this does not count.
create or replace function fastpubsub.list_expired_subscriptions(p_limit integer default 100, p_now timestamptz default null)
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
    if v_now > v_done_at + interval '5 minutes' then
        update fastpubsub.subscription_uses as u set used_at = least(u.used_at + (v_now - v_done_at), v_now);
    end if;
    update fastpubsub.subscription_uses as u set used_at = v_now
    from fastpubsub.cursors as c
    where
        u.topic_key = c.topic_key and u.subscription_key = c.subscription_key
        and fastpubsub.expires_at(u.used_at, c.expire_after_seconds) <= v_now
        and (
            c.paused_at is not null or c.is_pushed
            or exists (
                select from fastpubsub.leases as l
                where l.topic_key = u.topic_key and l.subscription_key = u.subscription_key
                -- Or it would read all leases, to look each one up.
                offset 0
            )
        );
    return query
    select c.topic_key, c.subscription_key, s.id, c.expire_after_seconds
    from fastpubsub.subscription_uses as u
    inner join fastpubsub.cursors as c on u.topic_key = c.topic_key and u.subscription_key = c.subscription_key
    inner join fastpubsub.subscriptions as s on c.subscription_key = s.subscription_key
    where fastpubsub.expires_at(u.used_at, c.expire_after_seconds) <= v_now
    order by u.used_at
    limit p_limit;
end;
$$;
