"""`fastpubsub consumers`."""

from fastpubsub.cli.arguments import SubscriptionId
from fastpubsub.cli.groups import list_by_token
from fastpubsub.cli.output import AsJson, Output

COLUMNS = ("consumer_id", "leased", "oldest_leased_at", "pulls", "streams", "waits_since")


def consumers(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """List the consumers that hold messages of a subscription or wait for some, on all servers."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="consumer_id")
    list_by_token(output, lambda **page: requests.list_consumers(subscription, **page))
