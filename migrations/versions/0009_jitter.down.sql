alter table fastpubsub.cursors drop column backoff_jitter;
