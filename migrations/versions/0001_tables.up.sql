-- A topic is a log, a subscription is a cursor over it. Names live in `topics` and `subscriptions`; the hot tables know keys only,
-- start every key with topic_key, have no foreign keys (the locked rows of `heads` and `cursors` are the referential rule) and only
-- the index that their hot statements need.

create table fastpubsub.topics (
    topic_key bigint generated always as identity primary key,
    id text not null unique check (id ~ '^[a-zA-Z0-9._-]{1,128}$' and id not in ('.', '..')),
    created_at timestamptz not null
);

create table fastpubsub.subscriptions (
    subscription_key bigint generated always as identity primary key,
    topic_key bigint not null,
    id text not null unique check (id ~ '^[a-zA-Z0-9._-]{1,128}$' and id not in ('.', '..')),
    filter json,
    created_at timestamptz not null
);

create index subscriptions_topic_key on fastpubsub.subscriptions (topic_key);

create table fastpubsub.clients (
    id uuid primary key,
    name text not null,
    scopes text not null,
    secret_hash text not null,
    old_secret_hash text,
    old_secret_expires_at timestamptz,
    is_active boolean not null,
    token_version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

-- The append point of a topic; an append locks it.
create table fastpubsub.heads (
    topic_key bigint primary key,
    retention_seconds bigint,
    schema json,
    schema_version bigint not null default 0
);

-- Each row says which filter judges the log from its position up to the next row: for explaining what became of a message.
create table fastpubsub.filter_history (
    topic_key bigint,
    subscription_key bigint,
    from_position bigint,
    state text not null check (state in ('judged', 'skipped', 'purged', 'forgotten')),
    filter json,
    sought_at timestamptz,
    primary key (topic_key, subscription_key, from_position)
);

-- The claim point of a subscription; a claim or an insert for it locks it.
create table fastpubsub.cursors (
    topic_key bigint,
    subscription_key bigint,
    filter_path jsonpath,
    ack_deadline_seconds integer not null,
    max_delivery_attempts integer not null,
    backoff_min_seconds integer not null,
    backoff_max_seconds integer not null,
    paused_at timestamptz,
    primary key (topic_key, subscription_key)
);

create table fastpubsub.messages (
    topic_key bigint,
    position bigint,
    created_at timestamptz not null,
    payload json not null,
    attributes jsonb,
    primary key (topic_key, position)
) with (
    toast_tuple_target = 8160,
    autovacuum_vacuum_insert_scale_factor = 0.5,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.5
);

-- One row per claim call. The newest is the cursor: how far the log was read, how far retries were taken, and running totals.
create table fastpubsub.claims (
    topic_key bigint,
    subscription_key bigint,
    sequence bigint,
    position bigint not null,
    retry_due_at timestamptz not null,
    retry_position bigint not null,
    routed bigint not null,
    purged bigint not null,
    dropped bigint not null,
    filtered bigint not null default 0,
    primary key (topic_key, subscription_key, sequence)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- A delivery: consecutive positions that one claim gave to one consumer. Settling a part of it cuts it.
create table fastpubsub.leases (
    topic_key bigint,
    subscription_key bigint,
    position bigint,
    last_position bigint not null check (last_position >= position and last_position < position + 100),
    token bigint not null,
    leased_at timestamptz not null,
    expires_at timestamptz not null,
    attempts integer not null,
    revived boolean not null,
    consumer_id text not null,
    primary key (topic_key, subscription_key, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

create index leases_expires_at on fastpubsub.leases (expires_at);

create table fastpubsub.retries (
    topic_key bigint,
    subscription_key bigint,
    due_at timestamptz,
    position bigint,
    attempts integer not null,
    reason text not null,
    primary key (topic_key, subscription_key, due_at, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

create table fastpubsub.dead_letters (
    topic_key bigint,
    subscription_key bigint,
    position bigint,
    created_at timestamptz not null,
    died_at timestamptz not null,
    attempts integer not null,
    reason text not null,
    payload json not null,
    attributes jsonb,
    primary key (topic_key, subscription_key, position)
);

-- Reprocesses or purges the dead letters that match, at a rate; `next_position` is how far it has come.
create table fastpubsub.redrives (
    topic_key bigint,
    subscription_key bigint,
    redrive_key bigint generated always as identity,
    action text not null check (action in ('reprocess', 'purge')),
    reason text,
    died_after timestamptz,
    died_before timestamptz not null,
    per_second integer,
    matched bigint not null,
    done bigint not null default 0,
    state text not null default 'running' check (state in ('running', 'done', 'cancelled')),
    next_position bigint not null default 0,
    stepped_at timestamptz not null,
    created_at timestamptz not null,
    ended_at timestamptz,
    primary key (topic_key, subscription_key, redrive_key)
);

create index redrives_running on fastpubsub.redrives (redrive_key) where state = 'running';

-- The copy of a reprocessed dead letter, as long as it waits or is leased.
create table fastpubsub.revived (
    topic_key bigint,
    subscription_key bigint,
    position bigint,
    created_at timestamptz not null,
    payload json not null,
    attributes jsonb,
    primary key (topic_key, subscription_key, position)
);

-- Not compressed: the bounds on bytes count what is stored, and a few kilobytes could become many megabytes of an answer.
alter table fastpubsub.messages alter column payload set storage external, alter column attributes set storage external;
alter table fastpubsub.dead_letters alter column payload set storage external, alter column attributes set storage external;
alter table fastpubsub.revived alter column payload set storage external, alter column attributes set storage external;

-- What happened in an interval of 5 or 60 seconds, by all processes: to a topic (subscription_key 0), a subscription, or the server (0, 0).
-- `at` is Unix time, where the interval begins.
create table fastpubsub.history (
    topic_key bigint,
    subscription_key bigint,
    at bigint,
    interval_seconds integer,
    published integer not null default 0,
    delivered integer not null default 0,
    acked integer not null default 0,
    nacked integer not null default 0,
    rejected integer not null default 0,
    expired integer not null default 0,
    dead_lettered integer not null default 0,
    filtered integer not null default 0,
    primary key (topic_key, subscription_key, interval_seconds, at)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

create index history_at on fastpubsub.history (interval_seconds, at);

create table fastpubsub.idempotency_keys (
    topic_key bigint,
    client text,
    key text,
    body_hash bytea not null,
    first_position bigint not null,
    message_count integer not null,
    created_at timestamptz not null,
    primary key (topic_key, client, key)
);

create index idempotency_keys_created_at on fastpubsub.idempotency_keys (topic_key, created_at);

-- Messages that applications published from their own transactions; the relay moves them into the log. An ordinal grows in a transaction.
create table fastpubsub.outbox (
    transaction_id xid8,
    ordinal bigint generated always as identity,
    topic_key bigint not null,
    payload json not null,
    attributes jsonb,
    primary key (transaction_id, ordinal)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

alter table fastpubsub.outbox alter column payload set storage external, alter column attributes set storage external;

-- Who changed what: the body of the request, unless it is long.
create table fastpubsub.changes (
    change_key bigint generated always as identity primary key,
    changed_at timestamptz not null,
    client_id text not null,
    request_id text,
    action text not null,
    object text not null,
    object_id text not null,
    body json
);

create index changes_object on fastpubsub.changes (object, object_id, change_key);

-- Deleted topics and subscriptions whose rows are still to be deleted in chunks; without a subscription_key it is the whole topic.
create table fastpubsub.purges (
    purge_key bigint generated always as identity primary key,
    topic_key bigint not null,
    subscription_key bigint
);

-- Who waits at a server process for messages of a subscription, or has a stream: written by the process every 5 seconds. After a crash
-- nobody waits any more.
create unlogged table fastpubsub.consumers (
    topic_key bigint,
    subscription_key bigint,
    process bigint,
    seen_at timestamptz not null,
    consumer_ids text [] not null,
    streams boolean [] not null,
    since timestamptz [] not null,
    primary key (topic_key, subscription_key, process)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- One row per background job, locked while it runs. `holder` is the process that looks for work more often than the others.
create table fastpubsub.jobs (
    name text primary key,
    holder text
);

insert into fastpubsub.jobs (name) values ('relay_messages'), ('release_expired_leases'), ('trim_messages');
