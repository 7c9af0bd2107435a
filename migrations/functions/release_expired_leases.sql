-- Ends leases of one subscription that are past their deadline, until they hold p_limit messages: the messages wait for a retry, or die
-- after the last attempt. Leases that another call settles or extends at this moment are left alone; only locked rows are deleted. So are,
-- for ten minutes, those that an open transaction of an application settles.
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
    -- So long a transaction of an application keeps a message beyond its deadline.
    c_kept constant interval := '10 minutes';
    v_now timestamptz;
    v_lease record;
    v_positions bigint [];
    v_lasts bigint [];
    v_attempts integer [];
    v_turns bigint [];
    v_consumer_ids text [];
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
    -- Without sorting, the order can only come from the index on the deadlines; the other index walks over rows that others deleted.
    for v_lease in
        select l.position, l.last_position, l.attempts, l.turn, l.consumer_id from fastpubsub.leases as l
        where
            l.expires_at > coalesce(v_now - make_interval(secs => p_look_back_seconds), '-infinity') and l.expires_at <= v_now
            and l.topic_key = p_topic_key and l.subscription_key = p_subscription_key
            and (l.expires_at <= v_now - c_kept or not fastpubsub.is_being_settled(l.token))
        order by l.expires_at
        limit p_limit
        for update skip locked
    loop
        delete from fastpubsub.leases as l
        where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key and l.position = v_lease.position;
        v_positions := v_positions || v_lease.position;
        v_lasts := v_lasts || v_lease.last_position;
        v_attempts := v_attempts || v_lease.attempts;
        v_turns := v_turns || v_lease.turn;
        v_consumer_ids := v_consumer_ids || v_lease.consumer_id;
        released := release_expired_leases.released + (v_lease.last_position - v_lease.position + 1);
        exit when release_expired_leases.released >= p_limit;
    end loop;
    if v_positions is null then
        return;
    end if;
    died := fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_positions, v_lasts, v_attempts, null, null, 'lease expired', v_now, null, v_turns, v_consumer_ids
    );
end;
$$;
