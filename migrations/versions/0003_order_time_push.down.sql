-- Ordering keys.
alter table fastpubsub.messages drop column ordering_key;
alter table fastpubsub.outbox drop column ordering_key;
alter table fastpubsub.dead_letters drop column ordering_key;
alter table fastpubsub.revived drop column ordering_key;

-- Settling in the consumer's own transaction.
drop table fastpubsub.settlements;
drop function fastpubsub.on_settlement;

-- Push.
drop table fastpubsub.dispatchers;
drop table fastpubsub.endpoints;
alter table fastpubsub.cursors drop column is_pushed;
-- Processes.
drop table fastpubsub.processes;
delete from fastpubsub.jobs where name = 'background';
