-- Ordering keys: 1 to 128 characters, copied with the message.
alter table fastpubsub.messages add column ordering_key text;
alter table fastpubsub.outbox add column ordering_key text;
alter table fastpubsub.dead_letters add column ordering_key text;
alter table fastpubsub.revived add column ordering_key text;

-- Settling in the consumer's own transaction.

-- What a transaction of an application settles when it commits; gone by then.
create table fastpubsub.settlements (
    transaction_id xid8,
    ordinal bigint generated always as identity,
    topic_key bigint not null,
    subscription_key bigint not null,
    action text not null check (action in ('ack', 'nack', 'reject')),
    positions bigint [] not null,
    tokens bigint [] not null,
    lengths integer [] not null,
    delay_seconds integer,
    reason text,
    primary key (transaction_id, ordinal)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

create function fastpubsub.on_settlement() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform fastpubsub.settle_at_commit();
    return null;
end;
$$;

create constraint trigger settlements_at_commit after insert on fastpubsub.settlements
deferrable initially deferred for each row execute function fastpubsub.on_settlement();

-- Push: whether only dispatchers claim for a subscription, next to what every claim reads anyway.
alter table fastpubsub.cursors add column is_pushed boolean;

-- Where the messages of a subscription are pushed. Headers and secrets are sealed by a key that the database does not have; `version` is
-- another one after each change, `holder` the process that pushes.
create table fastpubsub.endpoints (
    topic_key bigint,
    subscription_key bigint,
    settings json not null,
    headers bytea,
    secret bytea not null,
    old_secret bytea,
    old_secret_expires_at timestamptz,
    version bigint generated always as identity,
    holder bigint,
    primary key (topic_key, subscription_key)
);

-- The processes that push, and when each last said so. After a crash of PostgreSQL they say it again.
create unlogged table fastpubsub.dispatchers (
    process bigint primary key,
    seen_at timestamptz not null
) with (fillfactor = 50);

-- The processes of servers: `expected_at` is when one that has not said again that it lives counts as gone, `connections` how many it may
-- take. After a crash of PostgreSQL they say it again.
create unlogged table fastpubsub.processes (
    process bigint primary key,
    expected_at timestamptz not null,
    connections integer not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- `holder` does what no process needs to do while another does it.
insert into fastpubsub.jobs (name) values ('background');

-- Delayed messages. They wait apart from the log and are appended when they are due.
create sequence fastpubsub.delayed_keys;

create table fastpubsub.delayed_messages (
    topic_key bigint,
    delayed_key bigint,
    due_at timestamptz not null,
    created_at timestamptz not null,
    payload json not null,
    attributes jsonb,
    ordering_key text,
    primary key (topic_key, delayed_key)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

create index delayed_messages_due_at on fastpubsub.delayed_messages (topic_key, due_at, delayed_key);

alter table fastpubsub.delayed_messages alter column payload set storage external, alter column attributes set storage external;

-- Where delayed messages came in the log. The newest row of a topic is its floor, up to which everything that was due was appended;
-- one without a position is only that.
create table fastpubsub.fired_messages (
    topic_key bigint,
    due_at timestamptz,
    delayed_key bigint,
    position bigint,
    created_at timestamptz not null,
    primary key (topic_key, due_at, delayed_key)
);

create index fired_messages_delayed_key on fastpubsub.fired_messages (topic_key, delayed_key);

-- A topic that ever had a delayed message has a floor. What is due between the two times is held: it was overdue when a server came back.
alter table fastpubsub.heads
add column has_delayed boolean, add column held_after timestamptz, add column held_until timestamptz;
create index heads_has_delayed on fastpubsub.heads (topic_key) where has_delayed;
alter table fastpubsub.outbox add column deliver_at timestamptz, add column delayed_key bigint;
alter table fastpubsub.idempotency_keys add column delayed_keys bigint [];
