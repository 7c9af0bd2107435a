"""`fastpubsub filter`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.arguments import attributes_of, body_of, json_text, object_id, text
from fastpubsub.cli.completing import subscription_ids, topic_ids
from fastpubsub.cli.connection import connected
from fastpubsub.cli.groups import group
from fastpubsub.cli.output import AsJson, Output, table, write_text
from fastpubsub.cli.records import checked
from fastpubsub.cli.tables import text_of

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request

MOST = 1000

app = group("Test filters before you set them.")

Which = Annotated[
    str | None,
    typer.Option(
        help="Test the last messages of this subscription.",
        metavar="SUB",
        callback=lambda one: one and object_id(one),
        autocompletion=subscription_ids,
        show_default=False,
    ),
]
OfTopic = Annotated[
    str | None,
    typer.Option(
        help="Test the last messages of this topic, when there is no subscription yet.",
        metavar="TOPIC",
        autocompletion=topic_ids,
        callback=lambda one: one and object_id(one),
        show_default=False,
    ),
]
Filter = Annotated[
    str,
    typer.Option("--filter", help="""A filter, such as '{"country": ["BR", "US"]}'; null for none.""", metavar="JSON"),
]
Payload = Annotated[
    str | None, typer.Option(help="Test this payload, instead of messages.", metavar="JSON", show_default=False)
]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        "-a",
        help="An attribute beside the payload; can be repeated.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
OrderingKey = Annotated[
    str | None,
    typer.Option("--ordering-key", help="The ordering key beside the payload.", callback=text, show_default=False),
]
Last = Annotated[
    int | None,
    typer.Option(
        "--last",
        "-n",
        help="How many of the last messages to test; 100 by default.",
        min=1,
        max=MOST,
        show_default=False,
    ),
]


@app.talking("test")
def try_filter(
    filter_: Filter,
    subscription: Which = None,
    topic: OfTopic = None,
    payload: Payload = None,
    attributes: Attributes = None,
    ordering_key: OrderingKey = None,
    last: Last = None,
    as_json: AsJson = None,
) -> None:
    """Show which payload or messages a filter lets through, and why it keeps out the others. Changes nothing."""
    if (subscription is None) == (topic is None):
        raise typer.BadParameter("give --subscription, or --topic")
    if payload is not None and last is not None:
        raise typer.BadParameter("give --payload, or --last")
    if payload is None and (attributes or ordering_key is not None):
        raise typer.BadParameter("give --attribute and --ordering-key with a --payload")
    tested = {
        "payload": None if payload is None else json_text(payload, "--payload"),
        "attributes": attributes_of(attributes or []) or None,
        "ordering_key": ordering_key,
        "last": last,
    }
    body: dict[str, Any] = {"filter": json_text(filter_, "--filter")}
    body |= {name: value for name, value in tested.items() if value is not None}
    output = Output(as_json)
    with connected() as client:
        record, _ = client.send(replace(checked(_request(subscription, topic)), content=body_of(body)))
        if output.as_json or payload is not None:
            output.one(record)
        else:
            write_text("".join(f"{line}\n" for line in _judged(record.fields, output.width)))


def _request(subscription: str | None, topic: str | None) -> "Request[Any]":
    from fastpubsub.client import requests

    return requests.test_filter(subscription, None) if subscription else requests.test_topic_filter(topic or "", None)


def _judged(fields: dict[str, Any], width: int) -> list[str]:
    """Of the last messages: how many pass, and examples of both kinds."""
    lines = [f"{text_of(fields.get('passed'))} of {text_of(fields.get('looked_at'))} messages pass"]
    if "ahead_now" in fields:
        estimate = " (an estimate)" if fields.get("is_estimated") else ""
        now, after = text_of(fields["ahead_now"]), text_of(fields.get("ahead_after"))
        lines.append(f"ahead now {now}, with this filter {after}{estimate}")
    for member, title, columns in (
        ("passing", "passes:", ("id", "payload")),
        ("filtered", "is kept out:", ("id", "detail")),
    ):
        if rows := fields.get(member):
            lines += ["", title, *table(columns, rows, width)]
    return lines
