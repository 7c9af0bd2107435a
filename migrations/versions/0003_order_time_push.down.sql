-- Settling in the consumer's own transaction.
drop table fastpubsub.settlements;
drop function fastpubsub.on_settlement;
