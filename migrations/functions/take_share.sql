-- For a claim of a fair subscription: takes up to p_limit messages and p_max_bytes (at least one) of what it has put aside of a key after
-- p_turn, and passes the filter. What has expired is in `expired` instead. `turn` is the last message that it passed, and
-- `next_position` what comes next, null when there is nothing more.
create or replace function fastpubsub.take_share(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_key_hash bigint,
    p_turn bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_now timestamptz,
    out positions bigint [],
    out turn bigint,
    out next_position bigint,
    out size bigint,
    out routed integer,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint []
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
    -- Behind a filter.
    c_looked_at constant integer := 1000;
    v_bundle record;
    v_part record;
    v_match record;
    v_is_full boolean := false;
    v_before bigint;
begin
    positions := '{}';
    turn := p_turn;
    size := 0;
    routed := 0;
    filtered := 0;
    expired := '{}';
    loop
        select b.positions into v_bundle
        from fastpubsub.bundles as b
        where
            b.topic_key = p_topic_key and b.subscription_key = p_subscription_key and b.key_hash = p_key_hash
            and b.position > take_share.turn
        order by b.position limit 1;
        exit when not found;
        v_before := take_share.turn;
        for v_part in
            select
                u.position, pg_column_size(m.payload) + coalesce(pg_column_size(m.attributes), 0) as size,
                (m.expires_at <= p_now) is true as is_expired
            from (
                select u.position from unnest(v_bundle.positions) as u (position)
                where u.position > take_share.turn
                order by u.position
                -- One more tells what comes next.
                limit case when p_path is null then p_limit - cardinality(take_share.positions) + 1 end
            ) as u
            cross join lateral (
                select m.payload, m.attributes, m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
        loop
            v_is_full := cardinality(take_share.positions) >= p_limit
            or (cardinality(take_share.positions) > 0 and take_share.size + v_part.size > p_max_bytes)
            or cardinality(take_share.expired) >= c_looked_at or take_share.filtered >= c_looked_at;
            if v_is_full then
                next_position := v_part.position;
                return;
            end if;
            turn := v_part.position;
            if p_path is not null then
                v_match := fastpubsub.matching_positions(p_topic_key, v_part.position - 1, v_part.position, p_path, 1);
                unreadable := take_share.unreadable || v_match.unreadable;
                if v_match.positions is null then
                    filtered := take_share.filtered + 1;
                    continue;
                end if;
            end if;
            routed := take_share.routed + 1;
            if v_part.is_expired then
                expired := take_share.expired || v_part.position;
                continue;
            end if;
            positions := take_share.positions || v_part.position;
            size := take_share.size + v_part.size;
        end loop;
        if take_share.turn = v_before then
            raise exception using
                errcode = 'FP500',
                message = format(
                    'position %s of topic_key %s is put aside for subscription_key %s and is not there',
                    v_bundle.positions[cardinality(v_bundle.positions)], p_topic_key, p_subscription_key
                );
        end if;
    end loop;
end;
$$;
