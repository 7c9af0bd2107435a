-- What seek_subscription would do: how many messages are ahead and would be, when those that come next were published, and how many leases
-- and waiting retries would end. Of the messages ahead p_look are judged by the filter. Nothing is locked or changed.
create or replace function fastpubsub.preview_seek(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_to text,
    p_time timestamptz default null,
    p_position bigint default null,
    p_look integer default 10000,
    out ahead_now bigint,
    out ahead_after bigint,
    out is_estimated boolean,
    out ends_leased bigint,
    out ends_waiting bigint,
    out from_time timestamptz,
    out to_time timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
    v_cursor record;
    v_to bigint := fastpubsub.sought_position(p_topic_key, p_to, p_time, p_position);
    v_last bigint := fastpubsub.last_position(p_topic_key);
begin
    select c.position, c.retry_due_at, c.retry_position, u.filter_path into v_cursor
    from fastpubsub.claims as c
    inner join fastpubsub.cursors as u on c.topic_key = u.topic_key and c.subscription_key = u.subscription_key
    where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key
    order by c.sequence desc limit 1;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    select n.messages, a.messages, n.is_estimated or a.is_estimated
    into preview_seek.ahead_now, preview_seek.ahead_after, preview_seek.is_estimated
    from fastpubsub.count_ahead(p_topic_key, v_cursor.position, v_last, v_cursor.filter_path, p_look) as n
    cross join fastpubsub.count_ahead(p_topic_key, v_to, v_last, v_cursor.filter_path, p_look) as a;
    select coalesce(sum(l.last_position - l.position + 1), 0) into preview_seek.ends_leased
    from fastpubsub.leases as l where l.topic_key = p_topic_key and l.subscription_key = p_subscription_key;
    select count(*) into preview_seek.ends_waiting from fastpubsub.retries as r
    where
        r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
        and (r.due_at, r.position) > (v_cursor.retry_due_at, v_cursor.retry_position) and r.reason <> 'put aside';
    select preview_seek.ends_waiting + count(*) into preview_seek.ends_waiting from fastpubsub.parked as p
    where p.topic_key = p_topic_key and p.subscription_key = p_subscription_key and p.reason <> 'put aside';
    from_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_cursor.position + 1);
    to_time := fastpubsub.message_created_at(p_topic_key, p_subscription_key, v_to + 1);
end;
$$;
