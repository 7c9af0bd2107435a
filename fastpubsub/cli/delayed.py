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

app = group("List, show, move, cancel and release messages that come later.")

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
        State, typer.Option(help="held: those that were overdue when a server came back.")
    ] = State.waiting,
    limit: Limit = None,
    as_json: AsJson = None,
) -> None:
    """List the messages of a topic that come later, the next one first."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="payload")
    list_by_token(output, lambda **page: requests.list_delayed(topic, state=state.value, **page), limit)


@app.talking("show")
def show_delayed(topic: TopicId, id: DelayedId, as_json: AsJson = None) -> None:  # noqa: A002 - as in the API
    """Show a message that comes later, or the id that it got when it came."""
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
    """Let a message come at another time."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.move_delayed(topic, id, deliver_at=deliver_at, delay_seconds=delay_seconds))


@app.talking("cancel")
def cancel_delayed(topic: TopicId, id: DelayedId) -> None:  # noqa: A002 - as in the API
    """Cancel a message: it never comes."""

    with connected() as client:
        client.cancel_delayed(topic, id)
    note(f"cancelled {id}")


@app.talking("release")
def release_delayed(topic: TopicId) -> None:
    """Let the messages of a topic come that are held, because they were overdue when a server came back."""
    with connected() as client:
        released = client.release_delayed(topic)
    note(f"released {counted(released, 'message')} of {topic}")
