"""`fastpubsub open`: the console in the browser."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from fastpubsub.cli.arguments import object_id
from fastpubsub.cli.completing import any_ids
from fastpubsub.cli.connection import address, connected
from fastpubsub.cli.exits import FAILED, WRONG_USAGE, fail, note, printable
from fastpubsub.cli.output import write_text

if TYPE_CHECKING:
    from fastpubsub.client.clients import Client
    from fastpubsub.client.requests import Request

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A topic, a subscription or a message; the overview by default.",
        callback=lambda one: one and object_id(one),
        autocompletion=any_ids,
        show_default=False,
    ),
]
AsTopic = Annotated[bool, typer.Option("--topic", help="NAME is a topic.")]
AsSubscription = Annotated[bool, typer.Option("--subscription", help="NAME is a subscription.")]
OnlyPrint = Annotated[bool, typer.Option("--print", help="Only print the address.")]


def open_console(
    name: Name = None, topic: AsTopic = False, subscription: AsSubscription = False, prints: OnlyPrint = False
) -> None:
    """Open the console in the browser, at an object if one is named."""
    if topic + subscription > (name is not None):
        raise typer.BadParameter("--topic or --subscription says what NAME is")
    with connected() as client:
        console = _console(client)
        place = "" if name is None else _place(client, name, topic, subscription)
    import webbrowser

    where = f"{address().rstrip('/')}{console}#/{place}"
    if not prints and webbrowser.open(where):
        note(f"opened {where}")
        return
    write_text(f"{printable(where)}\n")
    if not prints:
        fail("there is no browser here: open this address in one", FAILED)


def _console(client: "Client") -> str:
    """Its path; the server says whether it has one."""
    from fastpubsub.cli.records import single
    from fastpubsub.client.requests import Request

    links: Request[Any] = Request("GET", "/", lambda _answer: None)
    path = client.send(single(links)).fields.get("console")
    if not isinstance(path, str):
        fail(f"{printable(address())} serves no console: FASTPUBSUB_CONSOLE_ENABLED is false there", FAILED)
    return quote(path)


def _place(client: "Client", name: str, topic: bool, subscription: bool) -> str:
    if not topic and not subscription and _is_message(name):
        return f"messages/{quote(name, safe='')}"
    kinds = [kind for kind, is_wanted in (("topics", topic), ("subscriptions", subscription)) if is_wanted]
    found = kinds or [kind for kind in ("topics", "subscriptions") if _exists(client, kind, name)]
    if len(found) > 1:
        fail(f"{printable(name)} is a topic and a subscription: add --topic or --subscription", WRONG_USAGE)
    if not found:
        fail(f"there is no topic, subscription or message {printable(name)} that this client may read", FAILED)
    return f"{found[0]}/{quote(name, safe='')}"


def _is_message(name: str) -> bool:
    import uuid

    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True


def _exists(client: "Client", kind: str, name: str) -> bool:
    from fastpubsub.client import requests
    from fastpubsub.client.errors import BadRequest, InvalidRequest, NotFound, PermissionDenied

    request: Request[Any] = requests.get_topic(name) if kind == "topics" else requests.get_subscription(name)
    try:
        client.send(request)
    except (BadRequest, InvalidRequest, NotFound, PermissionDenied):
        return False
    return True
