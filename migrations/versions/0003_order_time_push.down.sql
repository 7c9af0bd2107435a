-- Ordering keys.
alter table fastpubsub.messages drop column ordering_key;
alter table fastpubsub.outbox drop column ordering_key;
alter table fastpubsub.dead_letters drop column ordering_key;
alter table fastpubsub.revived drop column ordering_key;
