drop function fastpubsub.create_redrive;
drop function fastpubsub.list_redrives;
