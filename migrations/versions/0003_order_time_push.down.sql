-- Ordering keys.
alter table fastpubsub.messages drop column ordering_key;
alter table fastpubsub.outbox drop column ordering_key;
alter table fastpubsub.dead_letters drop column ordering_key;
alter table fastpubsub.revived drop column ordering_key;

-- Settling in the consumer's own transaction.
drop table fastpubsub.settlements;
drop function fastpubsub.on_settlement;

-- Push.
drop table fastpubsub.push_attempts;
drop table fastpubsub.dispatchers;
drop table fastpubsub.endpoints;
alter table fastpubsub.cursors drop column is_pushed;
-- Processes.
drop table fastpubsub.processes;
delete from fastpubsub.jobs where name = 'background';

drop table fastpubsub.failures;
update fastpubsub.redrives set matched = done where matched is null;
alter table fastpubsub.redrives drop column filter, alter column matched set not null;
alter table fastpubsub.cursors drop column dead_letter_topic;

-- What a dead letter keeps of its key.
delete from fastpubsub.retries as r where r.due_at = 'infinity';
alter table fastpubsub.dead_letters drop column turn;
alter table fastpubsub.cursors drop column on_dead_letter;

-- Backlogs.
alter table fastpubsub.heads drop column has_max_backlog;
alter table fastpubsub.cursors drop column max_backlog, drop column on_full;

-- Messages that expire.
alter table fastpubsub.claims drop column ttl_expired;
alter table fastpubsub.cursors drop column on_expired;
alter table fastpubsub.outbox drop column ttl_seconds, drop column expires_at;
alter table fastpubsub.messages drop column expires_at;

-- Limits.
delete from fastpubsub.jobs as j where j.name = 'expire_subscriptions';
alter table fastpubsub.jobs drop column done_at;
drop table fastpubsub.subscription_uses;
alter table fastpubsub.cursors drop column expire_after_seconds;
alter table fastpubsub.claims drop column full_at;
alter table fastpubsub.cursors drop column rate_limit;
alter table fastpubsub.claims drop column leased_from;
alter table fastpubsub.cursors drop column max_in_flight;

-- Schedules.
drop table fastpubsub.schedules;

-- Delayed messages.
alter table fastpubsub.idempotency_keys drop column delayed_keys;
alter table fastpubsub.outbox drop column deliver_at, drop column delayed_key;
drop index fastpubsub.heads_has_delayed;
alter table fastpubsub.heads drop column has_delayed, drop column held_after, drop column held_until;
drop table fastpubsub.fired_messages;
drop table fastpubsub.delayed_messages;
drop table fastpubsub.parked;
drop table fastpubsub.busy_keys;
drop table fastpubsub.message_keys;
alter table fastpubsub.retries drop column turn;
alter table fastpubsub.leases drop column turn;
alter table fastpubsub.cursors drop column ordered;
