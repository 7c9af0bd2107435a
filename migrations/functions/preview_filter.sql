-- How many messages are ahead of a subscription, and how many would be with another filter; of either, p_look messages are judged.
create or replace function fastpubsub.preview_filter(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_filter json,
    p_look integer default 10000,
    out ahead_now bigint,
    out ahead_after bigint,
    out is_estimated boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_path jsonpath := fastpubsub.compile_filter(p_filter);
    v_present jsonpath;
    v_position bigint;
    v_last bigint;
begin
    select u.filter_path into v_present from fastpubsub.cursors as u
    where u.topic_key = p_topic_key and u.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    v_position := fastpubsub.cursor_position(p_topic_key, p_subscription_key);
    v_last := fastpubsub.last_position(p_topic_key);
    select n.messages, a.messages, n.is_estimated or a.is_estimated
    into preview_filter.ahead_now, preview_filter.ahead_after, preview_filter.is_estimated
    from fastpubsub.count_ahead(p_topic_key, v_position, v_last, v_present, p_look) as n
    cross join fastpubsub.count_ahead(p_topic_key, v_position, v_last, v_path, p_look) as a;
end;
$$;
