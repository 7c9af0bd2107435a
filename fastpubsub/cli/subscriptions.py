"""`fastpubsub subscriptions`."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.arguments import (
    ExistOk,
    Limit,
    Offset,
    Stats,
    SubscriptionId,
    SubscriptionIds,
    TopicId,
    Yes,
    body_of,
    json_text,
    text,
)
from fastpubsub.cli.commands import with_options
from fastpubsub.cli.completing import subscription_ids, topic_ids
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note
from fastpubsub.cli.groups import delete_each, group, list_all, show
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.pushing import taking_push

if TYPE_CHECKING:
    pass

COLUMNS = ("id", "topic_id", "max_delivery_attempts", "ack_deadline_seconds", "created_at", "filter")
STATS = (
    *("id", "topic_id", "metrics.available", "metrics.delivered", "metrics.dlq", "metrics.oldest_ahead_seconds"),
    *("metrics.rates.delivered", "metrics.rates.acked"),
)

OfTopic = Annotated[
    str | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        callback=text,
        autocompletion=topic_ids,
        help="List only subscriptions of this topic.",
        show_default=False,
    ),
]

app = group("Create, list, show, change and delete subscriptions.")


class OnExpired(StrEnum):
    drop = "drop"
    dead_letter = "dead_letter"


class OnDeadLetter(StrEnum):
    go_on = "continue"
    hold = "hold"


class OnFull(StrEnum):
    reject = "reject"
    drop_oldest = "drop_oldest"
    dead_letter = "dead_letter"


Filter = Annotated[
    str | None,
    typer.Option("--filter", help="""A filter, such as '{"country": ["BR", "US"]}'; null for none.""", metavar="JSON"),
]
Attempts = Annotated[
    int | None,
    typer.Option(help="How many deliveries a message gets before it becomes a dead letter; new: 5."),
]
BackoffMin = Annotated[int | None, typer.Option(help="The wait after the first failure, in seconds; new: 5.")]
BackoffMax = Annotated[int | None, typer.Option(help="The longest wait after a failure, in seconds; new: 300.")]
Jitter = Annotated[
    float | None,
    typer.Option(
        "--backoff-jitter",
        help="The part of each wait, from 0 to 1, that is left to chance: what failed together comes apart; new: 0.",
    ),
]
AckDeadline = Annotated[int | None, typer.Option(help="How long a consumer may hold a message, in seconds; new: 60.")]
InFlight = Annotated[
    int | None, typer.Option(help="How many messages all consumers together may hold; 0 is no limit; new: no limit.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate-limit", help="How many messages a second all consumers together get; 0 is no limit; new: no limit."
    ),
]
DeadLetterTopic = Annotated[
    str | None,
    typer.Option(
        metavar="TOPIC",
        help='A topic that gets a copy of each dead letter; "" is none; new: none.',
        callback=text,
        autocompletion=topic_ids,
        show_default=False,
    ),
]
ExpireAfter = Annotated[
    int | None,
    typer.Option(help="Delete the subscription after so many seconds without a pull; 0 is never; new: never."),
]
OnExpiredOption = Annotated[
    OnExpired | None,
    typer.Option("--on-expired", help="What becomes of a message that expires; new: drop.", show_default=False),
]
OnDeadLetterOption = Annotated[
    OnDeadLetter | None,
    typer.Option(
        "--on-dead-letter",
        help="What becomes of the ordering key of a dead letter, of an ordered subscription; new: continue.",
        show_default=False,
    ),
]
MaxBacklog = Annotated[
    int | None,
    typer.Option(help="How many messages of the topic may come after its cursor; 0 is no limit; new: no limit."),
]
OnFullOption = Annotated[
    OnFull | None,
    typer.Option("--on-full", help="What happens to more than --max-backlog; new: reject.", show_default=False),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        help="latest, earliest, or a time such as 2026-01-31T12:00:00Z; new: latest.", callback=text, show_default=False
    ),
]
ForkOf = Annotated[
    str | None,
    typer.Option(
        metavar="SUBSCRIPTION",
        help="Take the settings of this subscription, and begin before its oldest unsettled message.",
        callback=text,
        autocompletion=subscription_ids,
        show_default=False,
    ),
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="Deliver messages with the same ordering key one after the other.")
]
FairByOption = Annotated[
    str | None,
    typer.Option(
        "--fair-by",
        metavar="ordering_key|attributes.NAME",
        help="Deliver equally many messages of each ordering key, or value of an attribute, that waits; new: not.",
        show_default=False,
    ),
]

Settings = dict[str, Any]
OPTIONS = {
    "filter_": Filter,
    "max_delivery_attempts": Attempts,
    "backoff_min_seconds": BackoffMin,
    "backoff_max_seconds": BackoffMax,
    "backoff_jitter": Jitter,
    "ack_deadline_seconds": AckDeadline,
    "max_in_flight": InFlight,
    "rate_limit": Rate,
    "dead_letter_topic": DeadLetterTopic,
    "expire_after_seconds": ExpireAfter,
    "on_expired": OnExpiredOption,
    "on_dead_letter": OnDeadLetterOption,
    "max_backlog": MaxBacklog,
    "on_full": OnFullOption,
}


def taking_settings(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has these options, and gets those that are given as `settings`."""

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in OPTIONS}
        settings: Settings = {name: value for name, value in chosen.items() if value is not None}
        if "filter_" in settings:
            settings = {"filter": json_text(settings.pop("filter_"), "--filter"), **settings}
        command(settings=settings, **given)

    return with_options(command, run, OPTIONS, instead="settings")


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
@taking_settings
@taking_push
def create_subscription(
    subscription: SubscriptionId,
    topic: TopicId,
    settings: Settings,
    push: Settings,
    start_from: StartFrom = None,
    fork_of: ForkOf = None,
    ordered: Ordered = False,
    fair_by: FairByOption = None,
    exist_ok: ExistOk = False,
    as_json: AsJson = None,
) -> None:
    """Create a subscription and show it."""
    from fastpubsub.client import requests

    if ordered:
        settings = {"ordered": True, **settings}
    if fair_by is not None:
        settings = {"fair_by": fair_by, **settings}
    if push and exist_ok:
        raise typer.BadParameter("give either push or --exist-ok: secret headers cannot be compared")
    body = _new(subscription, topic, start_from, fork_of, settings | push)
    request = requests.create_subscription(subscription, topic, exist_ok=exist_ok)
    show(Output(as_json), replace(request, content=body))


@app.talking("apply")
@taking_settings
def apply_subscription(
    subscription: SubscriptionId,
    topic: TopicId,
    settings: Settings,
    start_from: StartFrom = None,
    fork_of: ForkOf = None,
    as_json: AsJson = None,
) -> None:
    """Create a subscription, or change the settings given that differ, and show it."""
    from fastpubsub.client import existing, requests

    body = _new(subscription, topic, start_from, fork_of, settings)
    must_change = partial(existing.must_change, tell=note)
    show(Output(as_json), requests.ensuring_subscription(subscription, body, body_of(settings), must_change))


def _new(subscription: str, topic: str, start_from: str | None, fork_of: str | None, settings: Settings) -> bytes:
    members = {"id": subscription, "topic_id": topic, "start_from": start_from, "fork_of": fork_of}
    return body_of({name: value for name, value in members.items() if value is not None} | settings)


@app.talking("update")
@taking_settings
@taking_push
def update_subscription(
    subscription: SubscriptionId,
    settings: Settings,
    push: Settings,
    as_json: AsJson = None,
) -> None:
    """Change the given settings and show the subscription."""
    from fastpubsub.client import requests

    if not settings and not push:
        raise typer.BadParameter("say what to change: --filter, --max-delivery-attempts, …")
    request = requests.update_subscription(subscription)
    show(Output(as_json), replace(request, content=body_of(settings | push)))


@app.talking("pause")
def pause_subscription(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """Let nothing be delivered or pushed until the subscription is resumed."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.pause(subscription))


@app.talking("resume")
def resume_subscription(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """End a pause: what came meanwhile is delivered now."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.resume(subscription))


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
def delete_subscriptions(subscriptions: SubscriptionIds, yes: Yes = False) -> None:
    """Delete subscriptions and everything in them."""
    from fastpubsub.client import requests

    delete_each("subscription", subscriptions, " with everything in it", requests.delete_subscription, yes)
