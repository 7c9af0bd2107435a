"""`fastpubsub topics`."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from fastpubsub.cli.arguments import (
    ExistOk,
    Limit,
    Offset,
    Stats,
    TopicId,
    TopicIds,
    Yes,
    body_of,
    json_text,
    number_or_none,
)
from fastpubsub.cli.groups import delete_each, group, list_all, show
from fastpubsub.cli.output import AsJson, Output

COLUMNS = ("id", "retention_seconds", "created_at", "schema")
STATS = ("id", "metrics.published", "metrics.kept", "metrics.subscriptions", "metrics.rates.published", "created_at")

app = group("Create, list, show, change and delete topics.")

Retention = Annotated[
    str | None,
    typer.Option(help="How many seconds settled messages are kept; null for the server's setting.", metavar="SECONDS"),
]
Schema = Annotated[
    str | None, typer.Option(help="JSON Schema that payloads must match; null for none.", metavar="JSON")
]


@app.talking("list")
def list_topics(stats: Stats = False, limit: Limit = None, offset: Offset = 0, as_json: AsJson = None) -> None:
    """List topics, ordered by id."""
    from fastpubsub.client import requests

    list_all(
        Output(as_json, *STATS) if stats else Output(as_json, *COLUMNS, grows="schema"),
        lambda offset, limit: requests.list_topics(include_metrics=stats, offset=offset, limit=limit),
        limit,
        offset,
    )


@app.talking("show")
def show_topic(topic: TopicId, as_json: AsJson = None) -> None:
    """Show a topic."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_topic(topic))


@app.talking("create")
def create_topic(
    topic: TopicId,
    retention_seconds: Retention = None,
    schema: Schema = None,
    exist_ok: ExistOk = False,
    as_json: AsJson = None,
) -> None:
    """Create a topic and show it."""
    from fastpubsub.client import requests

    body = body_of({"id": topic, **_settings(retention_seconds, schema)})
    show(Output(as_json), replace(requests.create_topic(topic, exist_ok=exist_ok), content=body))


@app.talking("update")
def update_topic(
    topic: TopicId, retention_seconds: Retention = None, schema: Schema = None, as_json: AsJson = None
) -> None:
    """Change the given settings and show the topic. Its messages stay as they are."""
    from fastpubsub.client import requests

    body = body_of(_settings(retention_seconds, schema))
    show(Output(as_json), replace(requests.update_topic(topic, retention_seconds=None), content=body))


@app.talking("delete")
def delete_topics(topics: TopicIds, yes: Yes = False) -> None:
    """Delete topics, their subscriptions and everything in them."""
    from fastpubsub.client import requests

    delete_each("topic", topics, " with all subscriptions and messages", requests.delete_topic, yes)


def _settings(retention_seconds: str | None, schema: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if retention_seconds is not None:
        given["retention_seconds"] = number_or_none(retention_seconds, "--retention-seconds")
    if schema is not None:
        given["schema"] = json_text(schema, "--schema")
    return given
