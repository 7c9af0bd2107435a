-- Ordering keys: 1 to 128 characters, copied with the message.
alter table fastpubsub.messages add column ordering_key text;
alter table fastpubsub.outbox add column ordering_key text;
alter table fastpubsub.dead_letters add column ordering_key text;
alter table fastpubsub.revived add column ordering_key text;
