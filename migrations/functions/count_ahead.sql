-- Counts the messages in (p_after, p_last] that a filter matches. At most p_look of them are judged, in 100 ms; beyond them the count is
-- extrapolated by the share that matched so far.
create or replace function fastpubsub.count_ahead(
    p_topic_key bigint,
    p_after bigint,
    p_last bigint,
    p_path jsonpath,
    p_look integer,
    out messages bigint,
    out is_estimated boolean
)
language plpgsql volatile
as $$
declare
    v_log record;
begin
    messages := greatest(p_last - p_after, 0);
    is_estimated := false;
    if p_path is null or messages = 0 then
        return;
    end if;
    v_log := fastpubsub.scan_log(p_topic_key, p_after, p_last, p_path, p_look, p_look, 100);
    is_estimated := v_log.scanned < p_last;
    messages := cardinality(v_log.positions);
    if is_estimated then
        messages := messages * (p_last - p_after) / greatest(v_log.scanned - p_after, 1);
    end if;
end;
$$;
