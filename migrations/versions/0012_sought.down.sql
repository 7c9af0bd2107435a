alter table fastpubsub.cursors drop column if exists sought_sequence;
alter table fastpubsub.dead_letters drop column if exists sequence;
