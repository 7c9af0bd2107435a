-- Before a request is sent to the endpoint of a subscription by hand, with the message at p_position or with none of the topic. Raises
-- FP409 when the subscription is not pushed or its filter keeps the message out, and FP422 when the message is not kept. Nothing is leased
-- or settled.
create or replace function fastpubsub.require_push(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_position bigint default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    v_path jsonpath;
    v_passes boolean;
begin
    perform fastpubsub.begin_call(true);
    select c.filter_path into v_path
    from fastpubsub.cursors as c where c.topic_key = p_topic_key and c.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP404', message = 'the subscription does not exist';
    end if;
    perform from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP409', message = 'the subscription is not pushed; give it an endpoint first, with `push`';
    end if;
    perform from fastpubsub.dead_letters as d
    where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key and d.position = p_position;
    if found or p_position is null then
        return;
    end if;
    select v_path is null or fastpubsub.passes_filter(m.payload, m.attributes, v_path, m.ordering_key) into v_passes
    from fastpubsub.messages as m where m.topic_key = p_topic_key and m.position = p_position;
    if not found then
        raise exception using errcode = 'FP422', message = 'the message is no longer kept';
    elsif not v_passes then
        raise exception using errcode = 'FP409', message = 'the filter of the subscription keeps this message out';
    end if;
end;
$$;
