"""`fastpubsub ack`, `nack`, `reject` and `extend`: what `pull` printed is settled."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpubsub.cli.arguments import SubscriptionId, object_id, text
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import FAILED, counted, fail, note, printable

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request

STANDARD_INPUT = "-"
AT_ONCE = 1000

Deliveries = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="Ids or ack_ids of messages; - reads lines as `pull` prints them."),
]


def ack(subscription: SubscriptionId, ids: Deliveries) -> None:
    """Acknowledge messages: they are done and do not come again."""
    from fastpubsub.client import requests

    _settle(subscription, ids, "acknowledged", lambda some: requests.ack(subscription, some))


def nack(
    subscription: SubscriptionId,
    ids: Deliveries,
    delay_seconds: Annotated[
        int | None, typer.Option(help="How many seconds to wait, instead of the backoff.", min=0, show_default=False)
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="The reason, which `explain` and `dlq list` show.", callback=text, show_default=False),
    ] = None,
) -> None:
    """Give messages back: they come again after the backoff of the subscription."""
    from fastpubsub.client import requests

    def nack(ids: list[str]) -> "Request[Any]":
        return requests.nack(subscription, ids, delay_seconds=delay_seconds, reason=reason)

    _settle(subscription, ids, "gave back", nack)


def reject(
    subscription: SubscriptionId,
    ids: Deliveries,
    reason: Annotated[str, typer.Option(help="The reason, which `dlq list` shows.", callback=text)] = "rejected",
) -> None:
    """Make messages dead letters at once."""
    from fastpubsub.client import requests

    _settle(subscription, ids, "rejected", lambda some: requests.reject(subscription, some, reason=reason))


def extend(
    subscription: SubscriptionId,
    ids: Deliveries,
    seconds: Annotated[
        int, typer.Option(help="How many seconds from now the messages are held.", min=1, max=43200)
    ] = 60,
) -> None:
    """Move the ack deadline of messages."""
    from fastpubsub.client import requests

    _settle(subscription, ids, "extended", lambda some: requests.extend(subscription, some, seconds=seconds))


def _settle(subscription: str, given: list[str], did: str, build: "Any") -> None:
    ids = _read(given)
    done: set[str] = set()
    with connected() as client:
        for start in range(0, len(ids), AT_ONCE):
            request: Request[Any] = build(ids[start : start + AT_ONCE])
            answer = client.send(request)
            done |= set(answer if isinstance(answer, list) else answer.settled)
    note(f"{did} {counted(len(done), 'message')} of {subscription}")
    if late := [one for one in ids if one.lower() not in {id_.lower() for id_ in done}]:
        names = ", ".join(map(printable, late[:5]))
        fail(f"{subscription} no longer holds {counted(len(late), 'message')}: {names}; `explain` says why", FAILED)


def _read(given: list[str]) -> list[str]:
    if given != [STANDARD_INPUT]:
        return [object_id(one) for one in given]
    ids = [_id(number, line.strip()) for number, line in enumerate(sys.stdin, 1) if line.strip()]
    if not ids:
        raise typer.BadParameter("standard input has no ids")
    return ids


def _id(number: int, line: str) -> str:
    """The id on a line, which is alone there or in the message that was pulled."""
    if not line.startswith("{"):
        return object_id(line)
    try:
        message = json.loads(line)
        return object_id(str(message.get("ack_id") or message["id"]))
    except (ValueError, KeyError, RecursionError):
        raise typer.BadParameter(f"line {number} of standard input is not a message as `pull` prints it") from None
