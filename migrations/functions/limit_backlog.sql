-- Before a subscription of a topic gets a limit, and before its cursor is locked: every publish has to look from now
-- on.
create or replace function fastpubsub.limit_backlog(p_topic_key bigint, p_max_backlog integer) returns void
language plpgsql volatile
set enable_seqscan = off
as $$
begin
    if p_max_backlog > 0 then
        update fastpubsub.heads as h set has_max_backlog = true
        where h.topic_key = p_topic_key and h.has_max_backlog is not true;
    end if;
end;
$$;
