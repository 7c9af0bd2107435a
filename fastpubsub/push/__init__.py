"""Pushes the messages of subscriptions to the endpoints of services, and never where it should not."""
