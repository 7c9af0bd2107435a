drop table fastpubsub.refused_messages;
