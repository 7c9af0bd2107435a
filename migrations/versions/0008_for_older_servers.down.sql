drop function fastpubsub.relay_messages;
drop function fastpubsub.list_subscriptions_2;
