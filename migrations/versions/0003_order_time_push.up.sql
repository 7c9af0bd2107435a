-- Tables that are in use are changed one at a time. Each statement only changes the catalog, or makes an index of a small table.
alter table fastpubsub.messages
-- 1 to 128 characters, copied with the message.
add column if not exists ordering_key text,
add column if not exists expires_at timestamptz;
-- Committed before what follows.
alter table fastpubsub.outbox
add column if not exists ordering_key text,
add column if not exists deliver_at timestamptz,
add column if not exists delayed_key bigint,
add column if not exists ttl_seconds integer,
add column if not exists expires_at timestamptz;
-- Committed before what follows.
alter table fastpubsub.dead_letters
add column if not exists ordering_key text,
-- One of an ordered subscription may hold its key: this is what it then has in `retries` or `parked`, due at infinity.
add column if not exists turn bigint;
-- Committed before what follows.
alter table fastpubsub.revived add column if not exists ordering_key text;
-- Committed before what follows.
alter table fastpubsub.heads
-- A topic that ever had a delayed message has a floor.
add column if not exists has_delayed boolean,
-- What is due between the two times is held: it was overdue when a server came back.
add column if not exists held_after timestamptz,
add column if not exists held_until timestamptz,
-- A topic of which a subscription ever had a `max_backlog`.
add column if not exists has_max_backlog boolean;
create index if not exists heads_has_delayed on fastpubsub.heads (topic_key) where has_delayed;
-- Committed before what follows.
alter table fastpubsub.idempotency_keys add column if not exists delayed_keys bigint [];
-- Committed before what follows.
-- A redrive may have a filter; then it may be unknown how many dead letters match.
alter table fastpubsub.redrives add column if not exists filter json, alter column matched drop not null;
-- Committed before what follows.
alter table fastpubsub.cursors
-- Whether only dispatchers claim for a subscription, next to what every claim reads anyway.
add column if not exists is_pushed boolean,
add column if not exists ordered boolean not null default false,
-- The id of a topic to which dead letters are published, too: whoever set it may publish to a topic of that name.
add column if not exists dead_letter_topic text,
-- What limits a subscription, null for nothing: messages at once, and how many a second it hands out.
add column if not exists max_in_flight integer,
add column if not exists rate_limit double precision,
-- After how many seconds in which nobody pulls it is deleted, null for never.
add column if not exists expire_after_seconds integer,
-- What it does with messages that expire.
add column if not exists on_expired text not null default 'drop' check (on_expired in ('drop', 'dead_letter')),
-- Whether a dead letter holds its key, where the subscription is ordered.
add column if not exists on_dead_letter text not null default 'continue' check (on_dead_letter in ('continue', 'hold')),
-- How many messages may come after its cursor, null for any number, and what happens to more.
add column if not exists max_backlog integer,
add column if not exists on_full text not null default 'reject' check (on_full in ('reject', 'drop_oldest', 'dead_letter'));
create index if not exists cursors_max_backlog on fastpubsub.cursors (topic_key, subscription_key) where max_backlog is not null;
-- Committed before what follows.
alter table fastpubsub.claims
-- The position from which on leases are counted, where messages at once are limited.
add column if not exists leased_from bigint,
-- When the bucket that messages are taken from is full, where their rate is limited.
add column if not exists full_at timestamptz,
-- A claim passes messages that have expired; those it dropped are counted.
add column if not exists ttl_expired bigint;
-- Committed before what follows.
-- A turn is what one claim has of a key, named by the last message of the key that anybody had; what comes after it was put aside.
alter table fastpubsub.leases add column if not exists turn bigint;
-- One message of a key, which is what most turns are, is found by its position.
create index if not exists leases_turn on fastpubsub.leases (topic_key, subscription_key, turn) where turn <> last_position;
-- Committed before what follows.
alter table fastpubsub.retries add column if not exists turn bigint;
-- Committed before what follows.
-- When the job last ran, of those that need to know.
alter table fastpubsub.jobs add column if not exists done_at timestamptz;
-- Committed before what follows.
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

-- Where the messages of a subscription are pushed. Headers and secrets are sealed by a key that the database does not have; `version` is
-- another one after each change, `holder` the process that pushes. While its breaker is open: since when, failures in a row, the next try,
-- and why the last one failed.
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
    breaker_opened_at timestamptz,
    failures integer,
    next_try_at timestamptz,
    last_failure text,
    primary key (topic_key, subscription_key)
);

-- The processes that push, and when each last said so. After a crash of PostgreSQL they say it again.
create unlogged table fastpubsub.dispatchers (
    process bigint primary key,
    seen_at timestamptz not null
) with (fillfactor = 50);

-- What became of each push, with the beginning of the answer or why there was none; deleted after a while.
create table fastpubsub.push_attempts (
    topic_key bigint,
    subscription_key bigint,
    attempt_key bigint generated always as identity,
    position bigint not null,
    created_at timestamptz not null,
    pushed_at timestamptz not null,
    attempt integer not null,
    outcome text not null,
    status integer,
    milliseconds integer not null,
    said text not null,
    primary key (topic_key, subscription_key, attempt_key)
) with (autovacuum_vacuum_scale_factor = 0.05);

create index push_attempts_position on fastpubsub.push_attempts (topic_key, subscription_key, position);
create index push_attempts_pushed_at on fastpubsub.push_attempts (pushed_at);

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
create table fastpubsub.delayed_messages (
    topic_key bigint,
    delayed_key bigint generated by default as identity,
    due_at timestamptz not null,
    created_at timestamptz not null,
    payload json not null,
    attributes jsonb,
    ordering_key text,
    ttl_seconds integer,
    expires_at timestamptz,
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

-- Schedules: messages that are published again and again, by a cron expression or an interval. `next_at` is null while one is paused.
create table fastpubsub.schedules (
    topic_key bigint,
    id text,
    revision bigint not null default 1,
    payload json not null,
    attributes jsonb,
    ordering_key text,
    cron text,
    time_zone text,
    interval_seconds integer,
    catch_up text not null check (catch_up in ('once', 'all', 'none')),
    created_at timestamptz not null,
    paused_at timestamptz,
    next_at timestamptz,
    last_fired_at timestamptz,
    last_position bigint,
    fired bigint not null default 0,
    missed bigint not null default 0,
    problem text,
    primary key (topic_key, id),
    check ((cron is null) <> (interval_seconds is null) and (cron is null) = (time_zone is null))
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index schedules_next_at on fastpubsub.schedules (next_at);

-- Ordered subscriptions. A key is known by its hash. A key is busy as long as a message of it is leased or waits, or its messages were put
-- aside: the cursor has passed them, and nobody had them yet.

-- The messages of a key, in order.
create table fastpubsub.message_keys (
    topic_key bigint,
    key_hash bigint,
    position bigint,
    primary key (topic_key, key_hash, position)
);

-- The last message of each busy key that the cursor has passed.
create table fastpubsub.busy_keys (
    topic_key bigint,
    subscription_key bigint,
    position bigint,
    primary key (topic_key, subscription_key, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

-- Messages of a turn that are not leased, behind one that is leased or waits.
create table fastpubsub.parked (
    topic_key bigint,
    subscription_key bigint,
    turn bigint,
    position bigint,
    due_at timestamptz not null,
    attempts integer not null,
    reason text not null,
    primary key (topic_key, subscription_key, turn, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

-- A delivery that failed, as long as the topic or a dead letter has the message: who had it, and how and why it failed.
create table fastpubsub.failures (
    topic_key bigint,
    subscription_key bigint,
    position bigint,
    failure_key bigint generated always as identity,
    failed_at timestamptz not null,
    attempt integer not null,
    cause text not null,
    reason text,
    consumer_id text not null,
    primary key (topic_key, subscription_key, position, failure_key)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.5);

-- Of a subscription that is deleted when nobody pulls it: when it was last used, a minute more or less.
create table fastpubsub.subscription_uses (
    topic_key bigint,
    subscription_key bigint,
    used_at timestamptz not null,
    primary key (topic_key, subscription_key)
) with (fillfactor = 50);

insert into fastpubsub.jobs (name) values ('expire_subscriptions');
