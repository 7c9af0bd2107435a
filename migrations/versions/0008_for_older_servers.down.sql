drop function fastpubsub.relay_messages;
