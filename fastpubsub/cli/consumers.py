"""`fastpubsub consumers`."""

from fastpubsub.cli.arguments import SubscriptionId
from fastpubsub.cli.browsing import several_of
from fastpubsub.cli.connection import connected
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.records import single

COLUMNS = ("consumer_id", "leased", "oldest_leased_at", "pulls", "streams", "waits_since", "seen_at")


def consumers(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """List who holds messages of a subscription or waits for some, at all servers."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="consumer_id")
    token: str | None = None
    with connected() as client:
        while True:
            page = client.send(single(requests.list_consumers(subscription, page_token=token)))
            output.rows(several_of(page))
            token = page.fields.get("next_page_token")
            if token is None:
                return
