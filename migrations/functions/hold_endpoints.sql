-- Says that a dispatcher lives, and gives it its share of all endpoints: those that it holds, and those that nobody holds who has said so
-- for p_patience_seconds. It gives up what is more than its share. Returns what it
-- holds now.
create or replace function fastpubsub.hold_endpoints(
    p_process bigint,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null
)
returns table (topic_key bigint, subscription_key bigint, version bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_live bigint [];
    v_share bigint;
    v_held bigint;
begin
    if not exists (select from fastpubsub.endpoints) then
        return;
    end if;
    perform fastpubsub.begin_call(false);
    insert into fastpubsub.dispatchers as d (process, seen_at) values (p_process, v_now)
    on conflict (process) do update set seen_at = excluded.seen_at;
    select array_agg(d.process) into v_live
    from fastpubsub.dispatchers as d where d.seen_at > v_now - make_interval(secs => p_patience_seconds);
    select ceil(count(*)::numeric / cardinality(v_live)), count(*) filter (where e.holder = p_process) into v_share, v_held
    from fastpubsub.endpoints as e;
    if v_held > v_share then
        update fastpubsub.endpoints as e set holder = null
        where
            e.holder = p_process
            and (e.topic_key, e.subscription_key) in (
                select o.topic_key, o.subscription_key from fastpubsub.endpoints as o
                where o.holder = p_process
                order by o.topic_key, o.subscription_key
                offset v_share
            );
    elsif v_held < v_share then
        update fastpubsub.endpoints as e set holder = p_process
        from (
            select o.topic_key, o.subscription_key from fastpubsub.endpoints as o
            where o.holder is null or not o.holder = any(v_live)
            order by o.topic_key, o.subscription_key
            limit v_share - v_held
            for no key update skip locked
        ) as f
        where e.topic_key = f.topic_key and e.subscription_key = f.subscription_key;
    end if;
    return query
    select e.topic_key, e.subscription_key, e.version from fastpubsub.endpoints as e where e.holder = p_process;
end;
$$;
