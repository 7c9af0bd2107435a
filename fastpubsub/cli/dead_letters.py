"""`fastpubsub dlq`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.arguments import Limit, Offset, SubscriptionId, Yes, body_of, json_text, object_ids, text
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import FAILED, counted, fail, note, printable
from fastpubsub.cli.groups import confirm, group, list_by_token, show
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.progress import progress
from fastpubsub.cli.records import several

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

    Move = Callable[[str, list[str]], Request[list[str]]]

COLUMNS = ("id", "died_at", "delivery_attempts", "reason", "payload")
REDRIVES = ("id", "action", "state", "matched", "done", "per_second", "created_at", "reason")
MOVED_AT_ONCE = 100

app = group("List, reprocess and purge dead letters.")

LetterIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID", callback=object_ids, help="The ids of the dead letters.")
]
All = Annotated[bool, typer.Option("--all", help="Take all dead letters that exist now.")]


@app.talking("list")
def list_dead_letters(
    subscription: SubscriptionId,
    reason: Annotated[
        str | None,
        typer.Option(help="List only dead letters with exactly this reason.", callback=text, show_default=False),
    ] = None,
    died_after: Annotated[
        str | None,
        typer.Option(
            "--since", help="List only those that died at this time or later.", callback=text, show_default=False
        ),
    ] = None,
    died_before: Annotated[
        str | None,
        typer.Option("--until", help="List only those that died earlier.", callback=text, show_default=False),
    ] = None,
    limit: Limit = None,
    offset: Offset = 0,
    as_json: AsJson = None,
) -> None:
    """List the dead letters of a subscription, oldest message first."""
    from fastpubsub.client import requests

    output = Output(as_json, *COLUMNS, grows="payload")
    wanted: dict[str, Any] = {"reason": reason, "died_after": died_after, "died_before": died_before}
    list_by_token(output, lambda **page: requests.list_dead_letters(subscription, **wanted, **page), limit, offset)


@app.talking("reprocess")
def reprocess(subscription: SubscriptionId, ids: LetterIds = None, all_: All = False) -> None:
    """Deliver dead letters again, with their attempts counted from 1."""
    from fastpubsub.client import requests

    _check_which(ids or [], all_)
    moved = _move(subscription, ids or [], all_, "reprocessing", requests.reprocess_dead_letters)
    note(f"gave {counted(moved, 'dead letter')} of {subscription} to its consumers again")


@app.talking("purge")
def purge(subscription: SubscriptionId, ids: LetterIds = None, all_: All = False, yes: Yes = False) -> None:
    """Delete dead letters for good."""
    from fastpubsub.client import requests

    _check_which(ids or [], all_)
    which = "all dead letters" if all_ else counted(len(ids or []), "dead letter")
    confirm(f"Delete {which} of {printable(subscription)} for good?", yes)
    moved = _move(subscription, ids or [], all_, "purging", requests.purge_dead_letters)
    note(f"deleted {counted(moved, 'dead letter')} of {subscription}")


@app.talking("redrive")
def redrive(
    subscription: SubscriptionId,
    purging: Annotated[
        bool, typer.Option("--purge", help="Delete the dead letters instead of delivering them again.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(help="Take only dead letters with exactly this reason.", callback=text, show_default=False),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help="""Take only dead letters that match a filter, such as '{"country": ["BR"]}'.""",
            metavar="JSON",
            show_default=False,
        ),
    ] = None,
    died_after: Annotated[
        str | None,
        typer.Option("--since", help="Take only those that died at this time or later.", callback=text),
    ] = None,
    died_before: Annotated[
        str | None, typer.Option("--until", help="Take only those that died earlier.", callback=text)
    ] = None,
    per_second: Annotated[
        int | None, typer.Option(help="The highest number of messages in a second; by default there is none.", min=1)
    ] = None,
    yes: Yes = False,
    as_json: AsJson = None,
) -> None:
    """Let the server deliver all dead letters again that match, or delete them, in the background.

    `fastpubsub dlq redrives` shows how far it has come, and `fastpubsub dlq cancel` ends it.
    """
    from fastpubsub.client import requests

    if purging:
        confirm(f"Delete the dead letters of {printable(subscription)} that match for good?", yes)
    given = {
        "reason": reason,
        "filter": None if filter_ is None else json_text(filter_, "--filter"),
        "died_after": died_after,
        "died_before": died_before,
        "per_second": per_second,
    }
    action = "purge" if purging else "reprocess"
    body = {"action": action} | {name: value for name, value in given.items() if value is not None}
    show(Output(as_json), replace(requests.create_redrive(subscription), content=body_of(body)))


@app.talking("redrives")
def list_redrives(subscription: SubscriptionId, as_json: AsJson = None) -> None:
    """List the redrives of a subscription, newest first: all that run, and the last that have ended."""
    from fastpubsub.client import requests

    output = Output(as_json, *REDRIVES)
    with connected() as client:
        found = client.send(several(requests.list_redrives(subscription)))
    output.rows(found)


@app.talking("cancel")
def cancel(
    subscription: SubscriptionId,
    id: Annotated[int, typer.Argument(metavar="ID", help="The id of the redrive.", min=1)],  # noqa: A002 - as in the API
) -> None:
    """Cancel a redrive. What it has moved stays moved."""
    with connected() as client:
        client.cancel_redrive(subscription, id)
    note(f"cancelled redrive {id} of {subscription}")


def _check_which(ids: list[str], all_: bool) -> None:
    if bool(ids) == all_:
        raise typer.BadParameter("name the ids of dead letters, or give --all")


def _move(subscription: str, ids: list[str], all_: bool, doing: str, build: "Move") -> int:
    with connected() as client:
        if all_:
            return _move_all(client, subscription, doing, build)
        moved: list[str] = []
        for start in range(0, len(ids), MOVED_AT_ONCE):
            some = client.send(build(subscription, ids[start : start + MOVED_AT_ONCE]))
            moved += some
    if missing := [one for one in ids if one.lower() not in set(moved)]:
        fail(f"{len(moved)} of {len(ids)}; not dead letters: {', '.join(map(printable, missing[:5]))}", FAILED)
    return len(moved)


def _move_all(client: "Client", subscription: str, doing: str, build: "Move") -> int:
    """Each of them once: what dies again meanwhile stays."""
    total = _count(client, subscription)
    seen: set[str] = set()
    moved = offset = 0
    try:
        with progress(doing, total) as show:
            while total is None or moved < total:
                letters = client.list_dead_letters(subscription, offset=offset, limit=MOVED_AT_ONCE)
                new = [str(one.id) for one in letters if str(one.id) not in seen]
                offset += len(letters) - len(new)
                if not letters:
                    break
                if new:
                    moved += len(client.send(build(subscription, new)))
                    seen.update(new)
                show(moved)
    except BaseException:
        note(f"{doing} ended after {counted(moved, 'dead letter')}")
        raise
    return moved


def _count(client: "Client", subscription: str) -> int | None:
    """Returns the number of dead letters, or None without the right to read subscriptions."""
    from fastpubsub.client.errors import PermissionDenied

    try:
        return client.metrics(subscription).dlq
    except PermissionDenied:
        return None
