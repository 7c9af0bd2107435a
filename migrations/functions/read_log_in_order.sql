-- For a claim of an ordered subscription: reads the log after p_after, up to p_limit messages and p_max_bytes (with p_at_least_one, the
-- first one whatever its size), and until p_until. The messages of a key that is busy are put aside. `turns` are those of the keys, which
-- are busy from now on: -1 for a message that is all of its key, or has none, and 0 if something was put aside behind it already.
-- `scanned` is how far the cursor can move, past those in `expired`, which had nothing of their key before them. p_first is the first kept
-- position: before it, messages may have been trimmed, and be left for vacuum.
create or replace function fastpubsub.read_log_in_order(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_limit integer,
    p_max_bytes bigint,
    p_at_least_one boolean,
    p_until timestamptz,
    p_now timestamptz,
    p_first bigint default null,
    out positions bigint [],
    out turns bigint [],
    out size bigint,
    out scanned bigint,
    out filtered integer,
    out unreadable bigint [],
    out expired bigint [],
    out created_at timestamptz [],
    out payloads json [],
    out attributes jsonb [],
    out ordering_keys text []
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    c_step constant bigint := 4096;
    c_expired constant integer := 1000;
    v_first bigint := coalesce(p_first, fastpubsub.first_position(p_topic_key, p_last));
    v_step bigint := p_limit;
    v_to bigint;
    v_left integer;
    v_matching bigint [];
    v_unreadable bigint [];
    v_read record;
    v_is_read boolean := false;
    v_has_all boolean := false;
    v_belongings timestamptz [];
    v_busy bigint;
    v_place integer;
    v_is_closed boolean := false;
begin
    positions := '{}';
    turns := '{}';
    size := 0;
    scanned := p_after;
    filtered := 0;
    expired := '{}';
    loop
        v_to := least(p_last, read_log_in_order.scanned + v_step);
        v_left := p_limit - cardinality(read_log_in_order.positions);
        -- Where the last stretch gave nothing, this one may not, either.
        if
            v_is_closed and fastpubsub.pass_busy_keys(p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first)
        then
            scanned := v_to;
            exit when v_to >= p_last or clock_timestamp() >= p_until;
            v_step := least(greatest(v_step, 64) * 2, c_step);
            continue;
        end if;
        if p_path is not null then
            select f.positions, f.unreadable into v_matching, v_unreadable
            from fastpubsub.matching_positions(p_topic_key, read_log_in_order.scanned, v_to, p_path, v_step::integer) as f;
        else
            v_read := fastpubsub.take_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions, v_left,
                p_max_bytes - read_log_in_order.size, p_now
            );
            v_is_read := v_read.scanned is not null;
        end if;
        if not v_is_read then
            v_read := fastpubsub.judge_stretch(
                p_topic_key, p_subscription_key, read_log_in_order.scanned, v_to, v_first, read_log_in_order.positions, v_left,
                p_max_bytes - read_log_in_order.size, p_now, p_at_least_one and read_log_in_order.size = 0, p_path, v_matching
            );
        end if;
        if v_read.busy is not null then
            -- A join with the array would be planned by wrong statistics.
            foreach v_busy in array v_read.busy loop
                perform fastpubsub.follow_busy(p_topic_key, p_subscription_key, v_busy);
                v_place := array_position(read_log_in_order.positions, v_busy);
                if read_log_in_order.turns[v_place] = -1 then
                    turns[v_place] := 0;
                end if;
            end loop;
        end if;
        if v_read.busy is not null or 0 < any(v_read.turns) then
            insert into fastpubsub.busy_keys (topic_key, subscription_key, position)
            select p_topic_key, p_subscription_key, u.position
            from (
                select u.position from unnest(v_read.tails) as u (position)
                union all
                select distinct u.position from unnest(v_read.turns) as u (position) where u.position > 0
            ) as u;
        end if;
        v_belongings := null;
        if v_is_read then
            v_belongings := v_read.created_at;
        end if;
        if v_belongings is not null and (v_has_all or cardinality(read_log_in_order.positions) = 0) then
            v_has_all := true;
            created_at := read_log_in_order.created_at || v_belongings;
            payloads := read_log_in_order.payloads || v_read.payloads;
            attributes := read_log_in_order.attributes || v_read.attributes;
            ordering_keys := read_log_in_order.ordering_keys || v_read.ordering_keys;
        elsif v_read.positions is not null then
            v_has_all := false;
        end if;
        positions := read_log_in_order.positions || v_read.positions;
        turns := read_log_in_order.turns || v_read.turns;
        size := read_log_in_order.size + coalesce(v_read.size, 0);
        filtered := read_log_in_order.filtered + v_read.filtered;
        expired := read_log_in_order.expired || coalesce(v_read.expired, '{}');
        unreadable := read_log_in_order.unreadable || array(select u from unnest(v_unreadable) as u where u <= v_read.scanned);
        scanned := v_read.scanned;
        exit when
            v_read.is_full or cardinality(read_log_in_order.positions) >= p_limit or read_log_in_order.scanned >= p_last
            or clock_timestamp() >= p_until or cardinality(read_log_in_order.expired) >= c_expired;
        v_is_closed := v_read.positions is null and v_read.filtered = 0;
        -- Where most could be taken, those that are missing are close.
        if 2 * cardinality(v_read.positions) >= v_step then
            v_step := p_limit - cardinality(read_log_in_order.positions);
        else
            v_step := least(greatest(v_step, 64) * 2, c_step);
        end if;
    end loop;
    if not v_has_all then
        v_read := fastpubsub.read_claimed(p_topic_key, p_subscription_key, read_log_in_order.positions);
        created_at := v_read.created_at;
        payloads := v_read.payloads;
        attributes := v_read.attributes;
        ordering_keys := v_read.ordering_keys;
    end if;
end;
$$;
