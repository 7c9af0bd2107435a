"""`fastpubsub refused`."""

from typing import TYPE_CHECKING, Annotated

import typer

from fastpubsub.cli.arguments import Limit, TopicId, Yes, object_ids
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import FAILED, counted, fail, note, printable
from fastpubsub.cli.groups import confirm, group, list_by_token
from fastpubsub.cli.output import AsJson, Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpubsub.client.requests import Request

    Move = Callable[[str, list[str]], Request[list[str]]]

COLUMNS = ("id", "refused_at", "reason", "payload")
MOVED_AT_ONCE = 100

app = group("List, publish and purge messages from SQL that do not match the schema of their topic.")

RefusedIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID", callback=object_ids, help="The ids of the refused messages.")
]
All = Annotated[bool, typer.Option("--all", help="Take all refused messages that exist now.")]


@app.talking("list")
def list_refused(topic: TopicId, limit: Limit = None, as_json: AsJson = None) -> None:
    """List the refused messages of a topic, the oldest first."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="payload")
    list_by_token(output, lambda **page: requests.list_refused(topic, **page), limit)


@app.talking("publish")
def publish_refused(topic: TopicId, ids: RefusedIds = None, all_: All = False) -> None:
    """Publish refused messages that match the schema by now. The others stay."""
    from fastpubsub.client import requests

    _check_which(ids or [], all_)
    wanted, moved = _move(topic, ids or [], requests.publish_refused)
    note(f"published {counted(moved, 'refused message')} of {topic}")
    if moved < wanted:
        fail(f"{wanted - moved} of {wanted} are gone or do not match the schema: see fastpubsub refused list", FAILED)


@app.talking("purge")
def purge_refused(topic: TopicId, ids: RefusedIds = None, all_: All = False, yes: Yes = False) -> None:
    """Delete refused messages for good."""
    from fastpubsub.client import requests

    _check_which(ids or [], all_)
    which = "all refused messages" if all_ else counted(len(ids or []), "refused message")
    confirm(f"Delete {which} of {printable(topic)} for good?", yes)
    wanted, moved = _move(topic, ids or [], requests.purge_refused)
    note(f"deleted {counted(moved, 'refused message')} of {topic}")
    if moved < wanted:
        fail(f"{wanted - moved} of {wanted} were gone", FAILED)


def _check_which(ids: list[str], all_: bool) -> None:
    if bool(ids) == all_:
        raise typer.BadParameter("name the ids of refused messages, or give --all")


def _move(topic: str, ids: list[str], build: "Move") -> tuple[int, int]:
    """How many there were, and how many moved. Without ids it takes all, page by page."""
    wanted = moved = 0
    token = None
    with connected() as client:
        for start in range(0, len(ids), MOVED_AT_ONCE):
            moved += len(client.send(build(topic, ids[start : start + MOVED_AT_ONCE])))
        while not ids:
            page = client.list_refused(topic, limit=MOVED_AT_ONCE, page_token=token)
            token = page.next_page_token
            if page.data:
                wanted += len(page.data)
                moved += len(client.send(build(topic, [one.id for one in page.data])))
            if token is None:
                break
    return len(ids) or wanted, moved
