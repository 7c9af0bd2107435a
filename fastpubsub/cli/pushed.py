"""`fastpubsub subscriptions`: what pushes came to, and requests by hand."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fastpubsub.cli.arguments import Limit, SubscriptionId, body_of, json_text, text
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import FAILED, fail, note
from fastpubsub.cli.groups import list_by_token, show
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.records import checked
from fastpubsub.cli.subscriptions import app

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request
    from fastpubsub.models import PushTested

__all__ = ["app"]

ATTEMPTS = ("at", "message_id", "attempt", "outcome", "status", "milliseconds", "said")

TestPayload = Annotated[
    str | None,
    typer.Option("--payload", help="What to send; without it, an object that says that it is a test.", metavar="JSON"),
]


@app.talking("push-status")
def show_push_status(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Show whether a subscription is pushed now, and the breaker of its endpoint."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_push_status(subscription))


@app.talking("push-attempts")
def list_push_attempts(
    subscription: SubscriptionId,
    message: Annotated[
        str | None,
        typer.Option("--message", metavar="ID", help="Only of this message.", callback=text, show_default=False),
    ] = None,
    limit: Limit = None,
    as_json: AsJson = None,
) -> None:
    """List what became of each push of the last day, newest first, and what the endpoint answered."""
    from fastpubsub.client import requests

    build = partial(requests.list_push_attempts, subscription, message_id=message)
    list_by_token(Output(as_json, *ATTEMPTS, grows="said"), build, limit)


@app.talking("rotate-push-secret")
def rotate_push_secret(
    subscription: SubscriptionId,
    old_secret_seconds: Annotated[
        int,
        typer.Option(help="How long the previous secret signs as well; 0 ends it at once.", min=0, max=2592000),
    ] = 86400,
    as_json: AsJson = None,
) -> None:
    """Sign pushes with a new secret, and print it. It is shown only once."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.rotate_push_secret(subscription, old_secret_seconds=old_secret_seconds))
    note("save the secret now: it is not shown again")


@app.talking("test-push")
def try_push(subscription: SubscriptionId, payload: TestPayload = None, as_json: AsJson = None) -> None:
    """Send a signed test to the endpoint now, and print what it answered. No message is touched."""
    from fastpubsub.client import requests

    request = requests.test_push(subscription)
    if payload is not None:
        request = replace(request, content=body_of({"payload": json_text(payload, "--payload")}))
    _send_by_hand(Output(as_json), request)


@app.talking("resend")
def resend_message(
    subscription: SubscriptionId,
    message: Annotated[str, typer.Argument(help="The id of a message that the topic still has.", callback=text)],
    as_json: AsJson = None,
) -> None:
    """Send a message to the endpoint once more, now, and print what it answered. What became of it stays."""
    from fastpubsub.client import requests

    _send_by_hand(Output(as_json), requests.resend_message(subscription, message))


def _send_by_hand(output: Output, request: "Request[PushTested]") -> None:
    """Exits with 1 when the endpoint did not answer 2xx."""
    with connected() as client:
        record, tested = client.send(checked(request))
    output.one(record)
    if not 200 <= (tested.status or 0) < 300:
        fail(f"the endpoint did not accept it: {tested.said}", FAILED)
