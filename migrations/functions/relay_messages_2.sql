-- Moves rows of the outbox to the end of their topic, in the order of (transaction, ordinal), in one transaction, so
-- each arrives once. Rows that are gone were moved by another process. `moved` is null when another process is moving
-- rows at this moment. Rows of a topic that was deleted since are deleted and counted in `dropped`; those that are to
-- come later are put aside, and not counted. The payloads were checked by p_schema_version of the schema of the topic,
-- 0 for none; when it is not the current one, FP428 is raised, and nothing is moved. Rows with one of p_reasons do not
-- match it: they are kept apart, and counted in `refused`.
create or replace function fastpubsub.relay_messages_2(
    p_topic_key bigint,
    p_transactions bigint [],
    p_ordinals bigint [],
    p_schema_version bigint default 0,
    p_reasons text [] default null,
    p_now timestamptz default null,
    out topic_id text,
    out moved integer,
    out dropped integer,
    out refused integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_schema_version bigint;
    v_payloads json [];
    v_attributes jsonb [];
    v_ordering_keys text [];
    v_due_at timestamptz [];
    v_delayed_keys bigint [];
    v_ttl_seconds integer [];
    v_expires_at timestamptz [];
begin
    perform fastpubsub.begin_call(true);
    if not fastpubsub.lock_job('relay_messages', false) then
        return;
    end if;
    refused := 0;
    select h.schema_version into v_schema_version from fastpubsub.heads as h where h.topic_key = p_topic_key for no key update;
    if v_schema_version <> p_schema_version then
        raise exception using errcode = 'FP428', message = 'the schema of the topic has changed; try again';
    elsif found then
        select t.id into relay_messages_2.topic_id from fastpubsub.topics as t where t.topic_key = p_topic_key;
        if p_reasons is not null then
            refused := fastpubsub.refuse_messages(
                p_topic_key, p_transactions, p_ordinals, p_reasons, coalesce(p_now, clock_timestamp())
            );
        end if;
    end if;
    with taken as (
        delete from fastpubsub.outbox as o
        using unnest(p_transactions, p_ordinals) as u (transaction_id, ordinal)
        cross join lateral (
            select p.ctid from fastpubsub.outbox as p
            where
                p.transaction_id = u.transaction_id::text::xid8 and p.ordinal = u.ordinal
                and p.topic_key = p_topic_key
            limit 1
        ) as p
        where o.ctid = p.ctid
        returning
            o.transaction_id, o.ordinal, o.payload, o.attributes, o.ordering_key, o.deliver_at, o.delayed_key, o.ttl_seconds, o.expires_at
    )

    select
        array_agg(t.payload order by t.transaction_id, t.ordinal),
        array_agg(t.attributes order by t.transaction_id, t.ordinal),
        case when count(t.ordering_key) > 0 then array_agg(t.ordering_key order by t.transaction_id, t.ordinal) end,
        case when count(t.deliver_at) > 0 then array_agg(t.deliver_at order by t.transaction_id, t.ordinal) end,
        array_agg(t.delayed_key order by t.transaction_id, t.ordinal),
        case when count(t.ttl_seconds) > 0 then array_agg(t.ttl_seconds order by t.transaction_id, t.ordinal) end,
        case when count(t.expires_at) > 0 then array_agg(t.expires_at order by t.transaction_id, t.ordinal) end
    into v_payloads, v_attributes, v_ordering_keys, v_due_at, v_delayed_keys, v_ttl_seconds, v_expires_at
    from taken as t;
    moved := coalesce(cardinality(v_payloads), 0);
    dropped := 0;
    if topic_id is null then
        dropped := moved;
        moved := 0;
    elsif v_due_at is not null then
        perform fastpubsub.publish_and_delay(
            p_topic_key, v_payloads, v_attributes, v_ordering_keys, v_due_at, v_delayed_keys, coalesce(p_now, clock_timestamp()),
            v_ttl_seconds, v_expires_at
        );
        moved := cardinality(array_positions(v_due_at, null));
    elsif moved > 0 then
        perform fastpubsub.publish_messages(
            p_topic_key, v_payloads, v_attributes, null, p_now, v_ordering_keys, v_ttl_seconds, v_expires_at
        );
    end if;
end;
$$;
