"""`fastpubsub browse`: looks at messages without taking them."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastpubsub.cli.arguments import object_id, text
from fastpubsub.cli.completing import any_ids
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.records import PAGE, items, single

if TYPE_CHECKING:
    from fastpubsub.cli.records import Record
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

COLUMNS = {
    "topic": ("id", "position", "created_at", "payload"),
    "ahead": ("id", "position", "created_at", "delivery_attempts", "payload"),
    "waiting": ("id", "due_at", "reason", "payload"),
    "leased": ("id", "consumer_id", "lease_expires_at", "delivery_attempts", "payload"),
    "dead": ("id", "died_at", "reason", "payload"),
}
State = Literal["ahead", "leased", "waiting", "dead"]


def browse(
    subscription: Annotated[
        str,
        typer.Argument(
            metavar="SUB",
            help="The id of a subscription, or of a topic with --topic.",
            callback=object_id,
            autocompletion=any_ids,
        ),
    ],
    topic: Annotated[bool, typer.Option("--topic", help="Print all messages of a topic.")] = False,
    state: Annotated[State, typer.Option(help="The state of the messages to print.")] = "ahead",
    start: Annotated[
        str | None,
        typer.Option("--from", help="A position, a message id, or a time.", callback=text, show_default=False),
    ] = None,
    q: Annotated[
        str | None,
        typer.Option(
            "--search",
            "-q",
            help="payload.field=value, attributes.name=value, or a text in the payload.",
            callback=text,
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The highest number of messages.", min=1)] = 10,
    as_json: AsJson = None,
) -> None:
    """Print messages without taking them. Payloads need the scope messages:read."""
    from fastpubsub.client import requests

    def build(start: str | None, limit: int) -> "Request[Any]":
        if topic:
            return requests.browse_topic(subscription, start_from=start, q=q, limit=limit)
        return requests.browse(subscription, state, start_from=start, q=q, limit=limit)

    output = Output(as_json, *COLUMNS["topic" if topic else state], grows="payload")
    with connected() as client:
        looked_at = _show(client, output, build, start, limit)
    note(f"looked at {looked_at} messages")


def _show(client: "Client", output: Output, build: Any, start: str | None, limit: int) -> int:
    """Goes on where a page ended, until there are so many, or none is left."""
    looked_at = 0
    while True:
        page: Record = client.send(single(build(start, min(limit, PAGE))))
        rows = items(page)
        output.rows(rows)
        looked_at += int(page.fields["looked_at"])
        limit -= len(rows)
        start = page.fields.get("next")
        if limit <= 0 or start is None:
            return looked_at
