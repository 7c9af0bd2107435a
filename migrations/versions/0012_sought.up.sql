-- At which claim of its subscription a message died, and at which one a seek last went back, after which what had died can come again.
alter table fastpubsub.dead_letters add column if not exists sequence bigint;
-- Committed before what follows.
alter table fastpubsub.cursors add column if not exists sought_sequence bigint;
