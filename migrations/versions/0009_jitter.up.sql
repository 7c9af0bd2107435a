-- The part of each wait of the backoff that is left to chance, null for none.
alter table fastpubsub.cursors add column if not exists backoff_jitter double precision;
-- Where topics are on several nodes, a column cannot come with a constraint.
alter table fastpubsub.cursors
add constraint cursors_backoff_jitter_check check (backoff_jitter between 0.01 and 1);
