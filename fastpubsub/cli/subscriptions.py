"""`fastpubsub subscriptions`."""

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from fastpubsub.cli.arguments import (
    ExistOk,
    Limit,
    Offset,
    SubscriptionId,
    TopicId,
    Yes,
    json_value,
    object_ids,
    text,
)
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note
from fastpubsub.cli.groups import delete_each, group, list_all, show
from fastpubsub.cli.output import AsJson, Output

COLUMNS = ("id", "topic_id", "max_delivery_attempts", "ack_deadline_seconds", "created_at", "filter")

app = group("Create, list, show, change and delete subscriptions.")

Filter = Annotated[
    str | None, typer.Option("--filter", help="""As in '{"country": ["BR", "US"]}'; null for none.""", metavar="JSON")
]
Attempts = Annotated[int | None, typer.Option(help="Deliveries before a message is a dead letter.")]
BackoffMin = Annotated[int | None, typer.Option(help="The first wait after a failure.")]
BackoffMax = Annotated[int | None, typer.Option(help="The longest wait.")]
AckDeadline = Annotated[int | None, typer.Option(help="How long a consumer has a message.")]


@app.command("list")
def list_subscriptions(limit: Limit = None, offset: Offset = 0, as_json: AsJson = None) -> None:
    """List the subscriptions of all topics, ordered by id."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="filter")
    list_all(output, lambda offset, limit: requests.list_subscriptions(offset=offset, limit=limit), limit, offset)


@app.command("show")
def show_subscription(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Show a subscription."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_subscription(subscription))


@app.command("metrics")
def show_metrics(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Count the messages of a subscription by state."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.metrics(subscription))


@app.command("create")
def create_subscription(
    subscription: SubscriptionId,
    topic: TopicId,
    filter_: Filter = None,
    max_delivery_attempts: Attempts = None,
    backoff_min_seconds: BackoffMin = None,
    backoff_max_seconds: BackoffMax = None,
    ack_deadline_seconds: AckDeadline = None,
    start_from: Annotated[
        str, typer.Option(help="latest, earliest, or a time such as 2026-01-31T12:00:00Z.", callback=text)
    ] = "latest",
    exist_ok: ExistOk = False,
    as_json: AsJson = None,
) -> None:
    """Create a subscription, and show it."""
    from fastpubsub.client import requests

    settings = _settings(filter_, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds)
    body = {"id": subscription, "topic_id": topic, "start_from": start_from, **settings}
    request = requests.create_subscription(subscription, topic, exist_ok=exist_ok)
    show(Output(as_json), replace(request, content=json.dumps(body).encode()))


@app.command("update")
def update_subscription(
    subscription: SubscriptionId,
    filter_: Filter = None,
    max_delivery_attempts: Attempts = None,
    backoff_min_seconds: BackoffMin = None,
    backoff_max_seconds: BackoffMax = None,
    ack_deadline_seconds: AckDeadline = None,
    as_json: AsJson = None,
) -> None:
    """Change what is given, and show the subscription."""
    from fastpubsub.client import requests

    settings = _settings(filter_, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds)
    if not settings:
        raise typer.BadParameter("say what to change: --filter, --max-delivery-attempts, …")
    request = requests.update_subscription(subscription)
    show(Output(as_json), replace(request, content=json.dumps(settings).encode()))


@app.command("seek")
def seek_subscription(
    subscription: SubscriptionId,
    to: Annotated[str, typer.Argument(help="earliest, latest, a time, or a message id.", callback=text)],
) -> None:
    """Replay or skip: what comes next is the message at TO."""
    from fastpubsub.client import requests

    with connected() as client:
        client.send(requests.seek(subscription, to))
        note(f"subscription {subscription} goes on at {to}")


@app.command("delete")
def delete_subscriptions(
    subscriptions: Annotated[list[str], typer.Argument(metavar="SUB", callback=object_ids)], yes: Yes = False
) -> None:
    """Delete subscriptions and everything in them."""
    from fastpubsub.client import requests

    delete_each("subscription", subscriptions, " with everything in it", requests.delete_subscription, yes)


def _settings(
    filter_: str | None,
    max_delivery_attempts: int | None,
    backoff_min_seconds: int | None,
    backoff_max_seconds: int | None,
    ack_deadline_seconds: int | None,
) -> dict[str, Any]:
    numbers = {
        "max_delivery_attempts": max_delivery_attempts,
        "backoff_min_seconds": backoff_min_seconds,
        "backoff_max_seconds": backoff_max_seconds,
        "ack_deadline_seconds": ack_deadline_seconds,
    }
    given: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    return given if filter_ is None else {"filter": json_value(filter_, "--filter"), **given}
