-- Deletes what is refused of a topic for good. Returns the keys that it deleted.
create or replace function fastpubsub.purge_refused_messages(p_topic_key bigint, p_keys bigint []) returns bigint []
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_purged bigint [];
begin
    perform fastpubsub.begin_call(true);
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    with purged as (
        delete from fastpubsub.refused_messages as r
        using unnest(p_keys) as u (refused_key)
        cross join lateral (
            select m.ctid from fastpubsub.refused_messages as m
            where m.topic_key = p_topic_key and m.refused_key = u.refused_key
            limit 1
        ) as m
        where r.ctid = m.ctid
        returning r.refused_key
    )

    select coalesce(array_agg(p.refused_key), '{}') into v_purged
    from purged as p;
    return v_purged;
end;
$$;
