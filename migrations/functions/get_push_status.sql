-- How the pushing of a subscription goes: whether a process does it that said so in p_patience_seconds, and its breaker, if that is open.
-- Raises FP409 when it is not pushed.
create or replace function fastpubsub.get_push_status(
    p_topic_key bigint,
    p_subscription_key bigint,
    p_patience_seconds double precision default 15,
    p_now timestamptz default null,
    out is_held boolean,
    out failures integer,
    out breaker_opened_at timestamptz,
    out next_try_at timestamptz,
    out is_due boolean,
    out last_failure text,
    out old_secret_expires_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform fastpubsub.require_subscription(p_topic_key, p_subscription_key);
    select
        exists (
            select from fastpubsub.dispatchers as d
            where d.process = e.holder and d.seen_at > v_now - make_interval(secs => p_patience_seconds)
        ),
        coalesce(e.failures, 0), e.breaker_opened_at, e.next_try_at, e.next_try_at <= v_now, e.last_failure,
        case when e.old_secret_expires_at > v_now then e.old_secret_expires_at end
    into
        get_push_status.is_held, get_push_status.failures, get_push_status.breaker_opened_at, get_push_status.next_try_at,
        get_push_status.is_due, get_push_status.last_failure, get_push_status.old_secret_expires_at
    from fastpubsub.endpoints as e where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
    if not found then
        raise exception using errcode = 'FP409', message = 'the subscription is not pushed';
    end if;
end;
$$;
