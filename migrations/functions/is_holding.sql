-- Whether the dead letter of a position, which says p_turn, holds its key: nothing of that key comes before somebody
-- reprocesses or purges the dead letter.
create or replace function fastpubsub.is_holding(p_topic_key bigint, p_subscription_key bigint, p_position bigint, p_turn bigint)
returns boolean
language plpgsql stable
as $$
begin
    if p_turn is null then
        return false;
    end if;
    if exists (
        select from fastpubsub.retries as r
        where
            r.topic_key = p_topic_key and r.subscription_key = p_subscription_key and r.due_at = 'infinity'
            and r.position = p_position
    ) then
        return true;
    end if;
    return exists (
        select from fastpubsub.parked as p
        where
            p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.turn = p_turn
            and p.position = p_position and p.due_at = 'infinity'
    );
end;
$$;
