-- Says that a process of a server lives and takes up to p_connections. Returns whether it holds the background work, and when to say it
-- again: the holder and one other, who will notice first that the holder is gone, every second, all others in as many seconds as there are
-- processes, so that more of them do not ask more. A process counts as gone when it has missed three times. p_take: take the work over.
create or replace function fastpubsub.record_process(
    p_process bigint,
    p_connections integer,
    p_take boolean default false,
    p_now timestamptz default null,
    out holds boolean,
    out pause_seconds double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_holder text;
    v_others bigint;
    v_next bigint;
begin
    perform fastpubsub.begin_call(false);
    select j.holder into v_holder from fastpubsub.jobs as j where j.name = 'background';
    holds := v_holder is not distinct from p_process::text;
    if
        not holds
        and (p_take or not exists (select from fastpubsub.processes as p where p.process::text = v_holder and p.expected_at > v_now))
    then
        -- Of several at once the first takes it.
        update fastpubsub.jobs as j set holder = p_process::text
        where j.name = 'background' and j.holder is not distinct from v_holder;
        holds := found;
    end if;
    select count(*), min(p.process) filter (where p.process::text is distinct from v_holder) into v_others, v_next
    from fastpubsub.processes as p where p.process <> p_process and p.expected_at > v_now;
    pause_seconds := case when holds or p_process < coalesce(v_next, p_process + 1) then 1 else v_others + 1 end;
    insert into fastpubsub.processes as p (process, expected_at, connections)
    values (p_process, v_now + make_interval(secs => 3 * pause_seconds), p_connections)
    on conflict (process) do update set expected_at = excluded.expected_at, connections = excluded.connections;
end;
$$;
