-- For a claim of an ordered subscription, which has taken the retry of a turn away: up to p_limit messages of its key, in order. These are
-- the one that waited (p_is_put_aside: nobody had it yet), then those that are parked and due, then those that were put aside and pass the
-- filter, up to the cursor. `turn` is the turn from now on. What has expired is in `expired` instead,
-- with the attempts that it had. Without positions the key goes on, or is free.
create or replace function fastpubsub.continue_turn(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_turn bigint,
    p_position bigint,
    p_attempts integer,
    p_is_put_aside boolean,
    p_cursor bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out attempts integer [],
    out turn bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out expired_attempts integer []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- Of what was put aside behind a filter, in one call.
    c_looked_at constant integer := 1000;
    v_part record;
    v_match record;
    v_is_expired boolean;
    v_turn bigint;
begin
    turn := p_turn;
    positions := '{}';
    attempts := '{}';
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    expired_attempts := '{}';
    if not p_is_put_aside then
        select
            pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0),
            -- A reprocessed dead letter does not expire.
            (m.expires_at <= p_now) is true
            and not exists (
                select from fastpubsub.revived as v
                where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p_position
            )
        into continue_turn.size, v_is_expired
        from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
        if v_is_expired then
            expired := array[p_position];
            expired_attempts := array[p_attempts];
            size := 0;
        else
            positions := array[p_position];
            attempts := array[p_attempts + 1];
        end if;
        for v_part in
            select
                p.position, p.due_at, p.attempts, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true
                and not exists (
                    select from fastpubsub.revived as v
                    where v.topic_key = p_topic_key and v.subscription_key = p_subscription_key and v.position = p.position
                ) as is_expired
            from fastpubsub.parked as p
            cross join lateral (
                select m.payload, m.attributes, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = p.position
                limit 1
            ) as m
            where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
            order by p.position
        loop
            if
                v_part.due_at > p_now or cardinality(continue_turn.positions) >= p_limit
                or (cardinality(continue_turn.positions) > 0 and continue_turn.size + v_part.size > p_max_bytes)
            then
                return;
            end if;
            delete from fastpubsub.parked as p
            where
                p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
                and p.position = v_part.position;
            if v_part.is_expired then
                expired := continue_turn.expired || v_part.position;
                expired_attempts := continue_turn.expired_attempts || v_part.attempts;
                continue;
            end if;
            positions := continue_turn.positions || v_part.position;
            attempts := continue_turn.attempts || v_part.attempts + 1;
            size := continue_turn.size + v_part.size;
        end loop;
    end if;
    loop
        v_turn := continue_turn.turn;
        for v_part in
            select k.position, o.size, o.is_expired
            from fastpubsub.messages as m
            cross join lateral (
                select k.position from fastpubsub.message_keys as k
                where
                    k.topic_key = p_topic_key and k.key_hash = hashtextextended(m.ordering_key, 0) and k.position > continue_turn.turn
                    and k.position <= p_cursor
                order by k.position
                limit case when p_path is null then p_limit - cardinality(continue_turn.positions) else c_looked_at end
            ) as k
            cross join lateral (
                select
                    pg_column_size(o.payload) + coalesce(pg_column_size(o.attributes), 0) as size, (o.expires_at <= p_now) is true as is_expired
                from fastpubsub.messages as o
                where o.topic_key = p_topic_key and o.position = k.position
                limit 1
            ) as o
            -- The message of the turn may be trimmed by now.
            where m.topic_key = p_topic_key and m.position = p_position
            order by k.position
        loop
            exit when
                cardinality(continue_turn.positions) >= p_limit
                or (cardinality(continue_turn.positions) > 0 and continue_turn.size + v_part.size > p_max_bytes);
            turn := v_part.position;
            if p_path is not null then
                v_match := fastpubsub.matching_positions(p_topic_key, v_part.position - 1, v_part.position, p_path, 1);
                unreadable := continue_turn.unreadable || v_match.unreadable;
                if v_match.positions is null then
                    filtered := continue_turn.filtered + 1;
                    continue;
                end if;
            end if;
            routed := continue_turn.routed + 1;
            if v_part.is_expired then
                expired := continue_turn.expired || v_part.position;
                expired_attempts := continue_turn.expired_attempts || 0;
                continue;
            end if;
            positions := continue_turn.positions || v_part.position;
            attempts := continue_turn.attempts || 1;
            size := continue_turn.size + v_part.size;
        end loop;
        -- Once, unless all that was looked at has expired.
        exit when
            continue_turn.turn = v_turn or cardinality(continue_turn.positions) > 0 or p_path is not null
            or cardinality(continue_turn.expired) >= c_looked_at;
    end loop;
end;
$$;
