-- By what the messages of a subscription are shared among those that wait, null for nothing.
alter table fastpubsub.cursors
add column if not exists fair_by text
check (fair_by = 'ordering_key' or (starts_with(fair_by, 'attributes.') and length(fair_by) between 12 and 139));
-- Committed before what follows.
create index if not exists cursors_dead_letter_topic on fastpubsub.cursors (dead_letter_topic) where dead_letter_topic is not null;
-- Committed before what follows.
create index if not exists changes_client on fastpubsub.changes (client_id, change_key);
create index if not exists changes_changed_at on fastpubsub.changes (changed_at, change_key);
create index if not exists changes_kind on fastpubsub.changes (object, change_key);
create index if not exists changes_object_id on fastpubsub.changes (object_id, change_key);
-- Committed before what follows.
-- Messages of a key that a fair subscription has put aside in one look at the log, under the last of them.
create table if not exists fastpubsub.bundles (
    topic_key bigint,
    subscription_key bigint,
    key_hash bigint,
    position bigint,
    positions bigint [] not null,
    primary key (topic_key, subscription_key, key_hash, position)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

-- Messages from SQL that do not match the schema of their topic, with all that their rows in the outbox had.
create table if not exists fastpubsub.refused_messages (
    topic_key bigint,
    refused_key bigint generated always as identity,
    refused_at timestamptz not null,
    reason text not null,
    payload json not null,
    attributes jsonb,
    ordering_key text,
    deliver_at timestamptz,
    delayed_key bigint,
    ttl_seconds integer,
    expires_at timestamptz,
    primary key (topic_key, refused_key)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.5);

create index if not exists refused_messages_refused_at on fastpubsub.refused_messages (refused_at);
create index if not exists refused_messages_delayed_key on fastpubsub.refused_messages (topic_key, delayed_key)
where delayed_key is not null;

alter table fastpubsub.refused_messages alter column payload set storage external, alter column attributes set storage external;
