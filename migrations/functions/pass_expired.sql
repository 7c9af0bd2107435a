-- For a claim that met expired messages: passes those that come next, up to 1000, without reading their payloads; with a filter, those that
-- it matches, bounded like scan_log. `scanned` is how far the cursor can move: a position up to there that is not in `expired` does not
-- match.
create or replace function fastpubsub.pass_expired(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_rows bigint,
    p_milliseconds integer,
    p_now timestamptz,
    out scanned bigint,
    out expired bigint []
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
    c_looked_at constant integer := 1000;
    v_found record;
begin
    if p_path is null then
        scanned := coalesce(
            (
                select m.position - 1 from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= least(p_last, p_after + c_looked_at)
                    and (m.expires_at <= p_now) is not true
                order by m.position
                limit 1
            ),
            least(p_last, p_after + c_looked_at)
        );
        expired := array(select generate_series(p_after + 1, pass_expired.scanned));
        return;
    end if;
    v_found := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, c_looked_at, p_rows, p_milliseconds);
    scanned := coalesce(
        (
            select u.position - 1
            from unnest(v_found.positions) with ordinality as u (position, ordinal)
            cross join lateral (
                select m.expires_at from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position = u.position
                limit 1
            ) as m
            where (m.expires_at <= p_now) is not true
            order by u.ordinal
            limit 1
        ),
        v_found.scanned
    );
    expired := array(select u from unnest(v_found.positions) as u where u <= pass_expired.scanned);
end;
$$;
