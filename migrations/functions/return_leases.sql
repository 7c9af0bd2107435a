-- Gives back what one claim leased to a consumer that never got a byte of it: due at once, without the attempt.
create or replace function fastpubsub.return_leases(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_positions bigint [],
    p_token bigint,
    p_now timestamptz default null
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    v_taken record;
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_subscription(p_topic_key, p_subscription_key);
    v_taken := fastpubsub.take_leases(
        p_topic_key, p_subscription_key, p_positions, array_fill(p_token, array[cardinality(p_positions)]), null
    );
    if v_taken.positions is null then
        return 0;
    end if;
    perform fastpubsub.requeue_messages(
        p_topic_key, p_subscription_key, v_taken.positions, v_taken.last_positions,
        (select array_agg(t.attempts - 1 order by t.ordinal) from unnest(v_taken.attempts) with ordinality as t (attempts, ordinal)),
        array_fill(0, array[cardinality(v_taken.positions)]), null, 'returned', coalesce(p_now, clock_timestamp())
    );
    return (select sum(t.last_position - t.position + 1) from unnest(v_taken.positions, v_taken.last_positions) as t (position, last_position));
end;
$$;
