"""Options for `push` of a subscription, and its members in a file of `export`."""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from fastpubsub.cli.arguments import NONE, text
from fastpubsub.cli.commands import with_options
from fastpubsub.cli.exits import WRONG_USAGE, fail, printable

MEMBERS = ("endpoint", "format", "signature", "timeout_seconds", "max_concurrency", "reject_on")
"""That can be read again: the values of headers and the secret cannot."""

FROM_FILE = "@"
LARGEST_VALUE = 4096


class PushFormat(StrEnum):
    standard = "standard"
    cloudevents = "cloudevents"
    cloudevents_structured = "cloudevents-structured"
    pubsub = "pubsub"


class PushSignature(StrEnum):
    hmac = "hmac"
    ed25519 = "ed25519"


Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where messages are pushed to; null for nowhere.", callback=text),
]
Form = Annotated[PushFormat | None, typer.Option(help="The form of the requests; new: standard.")]
Signed = Annotated[
    PushSignature | None,
    typer.Option(help="Sign with a secret that the service has as well, or with a private key; new: hmac."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--push-header",
        metavar="NAME=VALUE",
        help="A header of each request; NAME=@FILE keeps it out of the history of the shell. Can be repeated.",
    ),
]
Timeout = Annotated[float | None, typer.Option(help="Until when the endpoint has to answer, in seconds; new: 10.")]
Concurrency = Annotated[int | None, typer.Option(help="Requests that may be on their way at once; new: 10.")]
RejectOn = Annotated[
    list[int] | None,
    typer.Option(help="A status that makes a message a dead letter at once. Can be repeated."),
]
OPTIONS = {
    "push_endpoint": Endpoint,
    "push_format": Form,
    "push_signature": Signed,
    "push_header": Headers,
    "push_timeout_seconds": Timeout,
    "push_max_concurrency": Concurrency,
    "push_reject_on": RejectOn,
}


def taking_push(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has these options, and gets them as `push`: as a setting to be changed, or nothing."""

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = {name.removeprefix("push_"): given.pop(name) for name in OPTIONS}
        command(push=_push({name: value for name, value in chosen.items() if value not in (None, [])}), **given)

    return with_options(command, run, OPTIONS, instead="push")


def _push(given: dict[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    if "endpoint" not in given:
        raise typer.BadParameter("the options of push replace all of its members: give --push-endpoint, too")
    if given["endpoint"] == NONE:
        if len(given) > 1:
            raise typer.BadParameter("--push-endpoint null ends push: leave out its other options")
        return {"push": None}
    if "header" in given:
        given["headers"] = dict(_headers(given.pop("header")))
    return {"push": given}


def _headers(given: list[str]) -> Iterator[tuple[str, str]]:
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter("--push-header is NAME=VALUE or NAME=@FILE")
        yield text(name) or "", _from_file(value[1:]) if value.startswith(FROM_FILE) else text(value) or ""


def _from_file(path: str) -> str:
    """Without the line end that editors write."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(LARGEST_VALUE + 2).removesuffix("\n")
    except OSError as error:
        fail(f"--push-header: {printable(path)}: {error.strerror}", WRONG_USAGE)
    except UnicodeDecodeError:
        fail(f"--push-header: {printable(path)} is not text", WRONG_USAGE)


def readable(push: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a file has of it."""
    return None if push is None else {one: push[one] for one in MEMBERS}


def merged(wanted: Mapping[str, Any] | None, existing: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Members that a file leaves out stay as they are."""
    return None if wanted is None else {**(readable(existing) or {}), **wanted}


def keep_headers(name: str, existing: Mapping[str, Any] | None) -> None:
    """Exits rather than to lose them: whoever changes push gives all of it anew, and nobody can read their values."""
    if existing and existing["header_names"]:
        fail(
            f"push of subscription {printable(name)} has headers, whose values nobody can read: change it with "
            "`fastpubsub subscriptions update`, --push-endpoint and --push-header",
            WRONG_USAGE,
        )
