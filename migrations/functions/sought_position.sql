-- The position of the cursor that seek_subscription means: the message after it comes next.
create or replace function fastpubsub.sought_position(
    p_topic_key bigint,
    p_to text,
    p_time timestamptz,
    p_position bigint
) returns bigint
language plpgsql volatile
as $$
declare
    v_last bigint := fastpubsub.last_position(p_topic_key);
begin
    -- An empty topic has no position before its first.
    return greatest(
        case p_to
            when 'latest' then v_last
            when 'time' then fastpubsub.position_before(p_topic_key, p_time)
            when 'message' then greatest(least(p_position, v_last + 1), fastpubsub.first_position(p_topic_key, v_last)) - 1
            else fastpubsub.first_position(p_topic_key, v_last) - 1
        end, 0
    );
end;
$$;
