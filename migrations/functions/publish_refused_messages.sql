-- Gives what is refused of a topic to the relay again, in the order in which it was refused. Each was checked by
-- p_schema_version of the schema, as in relay_messages_2: one that has a reason now stays, with that reason. Returns
-- the keys of those that go.
create or replace function fastpubsub.publish_refused_messages(
    p_topic_key bigint,
    p_keys bigint [],
    p_reasons text [],
    p_schema_version bigint default 0
) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_published bigint [];
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, p_schema_version);
    update fastpubsub.refused_messages as r set reason = u.reason
    from unnest(p_keys, p_reasons) as u (refused_key, reason)
    cross join lateral (
        select m.ctid, m.reason from fastpubsub.refused_messages as m
        where m.topic_key = p_topic_key and m.refused_key = u.refused_key
        limit 1
    ) as m
    where r.ctid = m.ctid and m.reason <> u.reason;
    with taken as (
        delete from fastpubsub.refused_messages as r
        using unnest(p_keys, p_reasons) as u (refused_key, reason)
        cross join lateral (
            select m.ctid from fastpubsub.refused_messages as m
            where m.topic_key = p_topic_key and m.refused_key = u.refused_key
            limit 1
        ) as m
        where r.ctid = m.ctid and u.reason is null
        returning r.*
    ),
    stored as (
        insert into fastpubsub.outbox (
            transaction_id, topic_key, payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at
        )
        select
            pg_current_xact_id(), t.topic_key, t.payload, t.attributes, t.ordering_key, t.deliver_at, t.delayed_key,
            t.ttl_seconds, t.expires_at
        from taken as t
        order by t.refused_key
    )

    select coalesce(array_agg(t.refused_key), '{}') into v_published
    from taken as t;
    return v_published;
end;
$$;
