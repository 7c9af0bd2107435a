-- For a claim that holds the cursor and has left out messages that expired: makes dead letters of them when the subscription wants that,
-- and returns how many. p_attempts are those that they had.
create or replace function fastpubsub.expire_messages(
    p_settings fastpubsub.cursors,
    p_positions bigint [],
    p_attempts integer [],
    p_now timestamptz
) returns integer
language plpgsql volatile
as $$
begin
    if p_settings.on_expired = 'drop' or coalesce(cardinality(p_positions), 0) = 0 then
        return 0;
    end if;
    return fastpubsub.requeue_messages(
        p_settings.topic_key, p_settings.subscription_key, p_positions, p_positions, p_attempts,
        array_fill(null::integer, array[cardinality(p_positions)]), array_fill('expired'::text, array[cardinality(p_positions)]), 'expired',
        p_now
    );
end;
$$;
