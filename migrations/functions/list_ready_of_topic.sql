-- As list_ready_subscriptions_2, of subscriptions of one topic.
create or replace function fastpubsub.list_ready_of_topic(
    p_topic_key bigint,
    p_subscription_keys bigint [],
    p_now timestamptz default null
) returns table (place integer, ready boolean, due_seconds double precision, paused boolean, room integer)
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
    v_key bigint;
    v_cursor fastpubsub.cursors;
    v_claim fastpubsub.claims;
    v_limit record;
begin
    place := 0;
    foreach v_key in array p_subscription_keys loop
        place := list_ready_of_topic.place + 1;
        select c.* into v_cursor from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = v_key;
        paused := coalesce(v_cursor.paused_at is not null, false);
        select c.* into v_claim from fastpubsub.claims as c
        where c.topic_key = p_topic_key and c.subscription_key = v_key
        order by c.sequence desc
        limit 1;
        ready := v_cursor.topic_key is null or v_claim.position is null;
        if not list_ready_of_topic.ready then
            perform 1 from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = v_claim.position + 1;
            ready := found;
        end if;
        if not list_ready_of_topic.ready then
            perform 1 from fastpubsub.retries as r
            where
                r.topic_key = p_topic_key and r.subscription_key = v_key
                and (r.due_at, r.position) > (v_claim.retry_due_at, v_claim.retry_position) and r.due_at <= v_now
            limit 1;
            ready := found;
        end if;
        select extract(epoch from r.due_at - v_now)::double precision into list_ready_of_topic.due_seconds
        from fastpubsub.retries as r
        where r.topic_key = p_topic_key and r.subscription_key = v_key and r.due_at > v_now and r.due_at < 'infinity'
        order by r.due_at, r.position
        limit 1;
        room := null;
        if list_ready_of_topic.ready and (v_cursor.max_in_flight is not null or v_cursor.rate_limit is not null) then
            v_limit := fastpubsub.room_to_claim(p_topic_key, v_key, v_cursor.max_in_flight, v_cursor.rate_limit, v_now);
            room := v_limit.room;
            due_seconds := case when v_limit.room = 0 then v_limit.seconds else list_ready_of_topic.due_seconds end;
        end if;
        due_seconds := case when not list_ready_of_topic.paused then list_ready_of_topic.due_seconds end;
        ready := list_ready_of_topic.ready and not list_ready_of_topic.paused and list_ready_of_topic.room is distinct from 0;
        continue when not (list_ready_of_topic.ready or list_ready_of_topic.paused or list_ready_of_topic.due_seconds is not null);
        return next;
    end loop;
end;
$$;
