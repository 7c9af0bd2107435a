"""`fastpubsub delayed`."""

from enum import StrEnum
from typing import Annotated

import typer

from fastpubsub.cli.arguments import DelaySeconds, DeliverAt, Limit, TopicId, object_id
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import counted, note
from fastpubsub.cli.groups import group, list_by_token, show
from fastpubsub.cli.output import AsJson, Output

COLUMNS = ("id", "deliver_at", "state", "payload")

app = group("List, show, move, cancel and release delayed messages.")

DelayedId = Annotated[
    str, typer.Argument(metavar="ID", callback=object_id, help="The id that the publish printed: delayed-…")
]


class State(StrEnum):
    waiting = "waiting"
    held = "held"


@app.talking("list")
def list_delayed(
    topic: TopicId,
    state: Annotated[
        State, typer.Option(help="held lists messages that were overdue when a server came back.")
    ] = State.waiting,
    limit: Limit = None,
    as_json: AsJson = None,
) -> None:
    """List the delayed messages of a topic, the next one first."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="payload")
    list_by_token(output, lambda **page: requests.list_delayed(topic, state=state.value, **page), limit)


@app.talking("show")
def show_delayed(topic: TopicId, id: DelayedId, as_json: AsJson = None) -> None:  # noqa: A002 - as in the API
    """Show a delayed message; after it was published, show its message id."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_delayed(topic, id))


@app.talking("move")
def move_delayed(
    topic: TopicId,
    id: DelayedId,  # noqa: A002 - as in the API
    deliver_at: DeliverAt = None,
    delay_seconds: DelaySeconds = None,
    as_json: AsJson = None,
) -> None:
    """Move a delayed message to another time."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.move_delayed(topic, id, deliver_at=deliver_at, delay_seconds=delay_seconds))


@app.talking("cancel")
def cancel_delayed(topic: TopicId, id: DelayedId) -> None:  # noqa: A002 - as in the API
    """Cancel a delayed message."""

    with connected() as client:
        client.cancel_delayed(topic, id)
    note(f"cancelled {id}")


@app.talking("release")
def release_delayed(topic: TopicId) -> None:
    """Publish the held messages of a topic, which were overdue when a server came back."""
    with connected() as client:
        released = client.release_delayed(topic)
    note(f"released {counted(released, 'message')} of {topic}")
