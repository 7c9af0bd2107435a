drop function fastpubsub.list_subscriptions_3;
