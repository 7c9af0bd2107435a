"""`fastpubsub subscriptions`."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import typer

from fastpubsub.cli.arguments import (
    ExistOk,
    Limit,
    Offset,
    Stats,
    SubscriptionId,
    TopicId,
    Yes,
    body_of,
    json_text,
    object_ids,
    text,
)
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note
from fastpubsub.cli.groups import delete_each, group, list_all, show
from fastpubsub.cli.output import AsJson, Output

COLUMNS = ("id", "topic_id", "max_delivery_attempts", "ack_deadline_seconds", "created_at", "filter")
STATS = (
    *("id", "topic_id", "metrics.available", "metrics.delivered", "metrics.dlq", "metrics.oldest_ahead_seconds"),
    *("metrics.rates.delivered", "metrics.rates.acked"),
)

OfTopic = Annotated[
    str | None,
    typer.Option("--topic", metavar="TOPIC", callback=text, help="Only those of this topic.", show_default=False),
]

app = group("Create, list, show, change and delete subscriptions.")

Filter = Annotated[
    str | None,
    typer.Option("--filter", help="""Such as '{"country": ["BR", "US"]}'; null for none.""", metavar="JSON"),
]
Attempts = Annotated[
    int | None, typer.Option(help="How many deliveries a message gets before it becomes a dead letter.")
]
BackoffMin = Annotated[int | None, typer.Option(help="The wait after the first failure, in seconds.")]
BackoffMax = Annotated[int | None, typer.Option(help="The longest wait after a failure, in seconds.")]
AckDeadline = Annotated[int | None, typer.Option(help="How long a consumer may hold a message, in seconds.")]
StartFrom = Annotated[
    str, typer.Option(help="latest, earliest, or a time such as 2026-01-31T12:00:00Z.", callback=text)
]


@app.talking("list")
def list_subscriptions(
    topic: OfTopic = None, stats: Stats = False, limit: Limit = None, offset: Offset = 0, as_json: AsJson = None
) -> None:
    """List the subscriptions of all topics, or of one, ordered by id."""
    from fastpubsub.client import requests

    list_all(
        Output(as_json, *STATS) if stats else Output(as_json, *COLUMNS, grows="filter"),
        lambda offset, limit: requests.list_subscriptions(
            topic_id=topic, include_metrics=stats, offset=offset, limit=limit
        ),
        limit,
        offset,
    )


@app.talking("show")
def show_subscription(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Show a subscription."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_subscription(subscription))


@app.talking("metrics")
def show_metrics(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Count the messages of a subscription by state."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.metrics(subscription))


@app.talking("create")
def create_subscription(
    subscription: SubscriptionId,
    topic: TopicId,
    filter_: Filter = None,
    max_delivery_attempts: Attempts = None,
    backoff_min_seconds: BackoffMin = None,
    backoff_max_seconds: BackoffMax = None,
    ack_deadline_seconds: AckDeadline = None,
    start_from: StartFrom = "latest",
    exist_ok: ExistOk = False,
    as_json: AsJson = None,
) -> None:
    """Create a subscription and show it."""
    from fastpubsub.client import requests

    settings = _settings(filter_, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds)
    body = {"id": subscription, "topic_id": topic, "start_from": start_from, **settings}
    request = requests.create_subscription(subscription, topic, exist_ok=exist_ok)
    show(Output(as_json), replace(request, content=body_of(body)))


@app.talking("apply")
def apply_subscription(
    subscription: SubscriptionId,
    topic: TopicId,
    filter_: Filter = None,
    max_delivery_attempts: Attempts = None,
    backoff_min_seconds: BackoffMin = None,
    backoff_max_seconds: BackoffMax = None,
    ack_deadline_seconds: AckDeadline = None,
    start_from: StartFrom = "latest",
    as_json: AsJson = None,
) -> None:
    """Create a subscription, or change the settings given that differ, and show it."""
    from fastpubsub.client import existing, requests

    settings = _settings(filter_, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds)
    body = body_of({"id": subscription, "topic_id": topic, "start_from": start_from, **settings})
    must_change = partial(existing.must_change, tell=note)
    show(Output(as_json), requests.ensuring_subscription(subscription, body, body_of(settings), must_change))


@app.talking("update")
def update_subscription(
    subscription: SubscriptionId,
    filter_: Filter = None,
    max_delivery_attempts: Attempts = None,
    backoff_min_seconds: BackoffMin = None,
    backoff_max_seconds: BackoffMax = None,
    ack_deadline_seconds: AckDeadline = None,
    as_json: AsJson = None,
) -> None:
    """Change the given settings and show the subscription."""
    from fastpubsub.client import requests

    settings = _settings(filter_, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds, ack_deadline_seconds)
    if not settings:
        raise typer.BadParameter("say what to change: --filter, --max-delivery-attempts, …")
    request = requests.update_subscription(subscription)
    show(Output(as_json), replace(request, content=body_of(settings)))


@app.talking("seek")
def seek_subscription(
    subscription: SubscriptionId,
    to: Annotated[str, typer.Argument(help="earliest, latest, a time, or a message id.", callback=text)],
) -> None:
    """Replay or skip messages: the next delivery is the message at TO."""
    from fastpubsub.client import requests

    with connected() as client:
        client.send(requests.seek(subscription, to))
        note(f"subscription {subscription} continues at {to}")


@app.talking("delete")
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
    return given if filter_ is None else {"filter": json_text(filter_, "--filter"), **given}
