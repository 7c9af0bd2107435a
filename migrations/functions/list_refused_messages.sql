-- Lists what is refused of a topic in the order in which that happened, after p_after, up to p_limit and p_max_bytes
-- (at least one); with p_keys only those. `looked_at` is how many there would be without p_max_bytes.
create or replace function fastpubsub.list_refused_messages(
    p_topic_key bigint,
    p_after bigint,
    p_limit integer,
    p_max_bytes bigint,
    p_keys bigint [] default null,
    out refused_key bigint,
    out refused_at timestamptz,
    out reason text,
    out payload json,
    out attributes jsonb,
    out ordering_key text,
    out deliver_at timestamptz,
    out delayed_key bigint,
    out ttl_seconds integer,
    out expires_at timestamptz,
    out looked_at bigint
) returns setof record
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
begin
    perform from fastpubsub.heads as h where h.topic_key = p_topic_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the topic does not exist';
    end if;
    return query
    select
        r.refused_key, r.refused_at, r.reason, r.payload, r.attributes, r.ordering_key, r.deliver_at, r.delayed_key,
        r.ttl_seconds, r.expires_at, r.looked_at
    from (
        select
            m.*, count(*) over () as looked_at,
            sum(pg_column_size(m.payload)) over (order by m.refused_key) - pg_column_size(m.payload) as bytes_before
        from (
            (
                select m.* from fastpubsub.refused_messages as m
                where p_keys is null and m.topic_key = p_topic_key and m.refused_key > coalesce(p_after, 0)
                order by m.refused_key
                limit p_limit
            )
            union all
            (
                select m.*
                from (select distinct k from unnest(p_keys) as k) as u (refused_key)
                cross join lateral (
                    select m.* from fastpubsub.refused_messages as m
                    where m.topic_key = p_topic_key and m.refused_key = u.refused_key
                    limit 1
                ) as m
            )
        ) as m
    ) as r
    where r.bytes_before < p_max_bytes
    order by r.refused_key;
end;
$$;
