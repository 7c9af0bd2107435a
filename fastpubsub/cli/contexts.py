"""`fastpubsub context`: servers with names."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import typer

from fastpubsub.cli import places
from fastpubsub.cli.arguments import text
from fastpubsub.cli.completing import context_names
from fastpubsub.cli.exits import WRONG_USAGE, fail, note, printable
from fastpubsub.cli.groups import group
from fastpubsub.cli.output import AsJson, Output
from fastpubsub.cli.places import CLIENT_SECRET, NAME, Context, Contexts
from fastpubsub.cli.records import Record

COLUMNS = ("name", "is_current", "url", "client_id", "has_secret")
MAX_SECRET = 4096

app = group("Keep servers, each with a client, under a name, and choose one.")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise typer.BadParameter("a name has up to 64 letters, digits, dots, dashes and underscores")
    return value


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the context.", callback=_name, autocompletion=context_names)
]
Server = Annotated[str, typer.Option("--url", help="The address of the server.", callback=text)]
ClientId = Annotated[
    str | None, typer.Option(metavar="ID", help="The id of the client to use there.", callback=text, show_default=False)
]
SecretFrom = Annotated[
    Literal["prompt", "stdin", "env", "none"] | None,
    typer.Option(
        help=f"Where to read the secret: from the terminal, the first line of standard input, or {CLIENT_SECRET}; with "
        "none, each command reads that variable. The default is prompt on a terminal, and stdin elsewhere.",
        show_default=False,
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a context of this name.")]


@app.local("list")
def list_contexts(as_json: AsJson = None) -> None:
    """List the contexts. Secrets are not shown."""
    contexts = places.load()
    Output(as_json, *COLUMNS).rows(list(_records(contexts, contexts.known)))


@app.local("show")
def show_context(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name of the context; the one in use by default.")
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Show a context. Its secret is not shown."""
    contexts = places.load()
    name = name or contexts.current
    if name is None:
        fail("no context is in use: `fastpubsub context use` chooses one", WRONG_USAGE)
    contexts.get(name)
    Output(as_json).one(next(_records(contexts, [name])))


@app.local("add")
def add_context(
    name: Name, url: Server, client_id: ClientId = None, secret_from: SecretFrom = None, replace: Replace = False
) -> None:
    """Keep a server under a name; the first one is in use at once. Other users can see options, so none is a secret."""
    if secret_from is not None and client_id is None:
        raise typer.BadParameter("--secret-from needs --client-id")
    if not replace and name in places.load().known:
        fail(f"there is a context {name}: add --replace", WRONG_USAGE)
    context = Context(url, client_id, None if client_id is None else _secret(secret_from))
    if problem := places.fault(context):
        fail(problem, WRONG_USAGE)
    with places.changing() as contexts:
        contexts.known[name] = context
        contexts.current = contexts.current or name
    note(f"added context {name}{', which is in use' if contexts.current == name else ''}")


@app.local("use")
def use_context(name: Name) -> None:
    """Let commands use a context, unless options or variables say otherwise."""
    with places.changing() as contexts:
        contexts.get(name)
        contexts.current = name
    note(f"context {name} is in use")
    if os.environ.get(places.URL):
        note(f"fastpubsub: {places.URL} is set, and goes before it")


@app.local("remove")
def remove_context(name: Name) -> None:
    """Remove a context and its secret."""
    with places.changing() as contexts:
        contexts.get(name)
        del contexts.known[name]
        contexts.current = None if contexts.current == name else contexts.current
    note(f"removed context {name}{'' if contexts.current else '; none is in use'}")


def _records(contexts: Contexts, names: "list[str] | dict[str, Context]") -> Iterator[Record]:
    for name in names:
        one = contexts.known[name]
        shown = {
            "name": name,
            "is_current": name == contexts.current,
            "url": places.without_password(one.url),
            "client_id": one.client_id,
            "has_secret": one.client_secret is not None,
        }
        yield Record(json.dumps(shown).encode())


def _secret(source: str | None) -> str | None:
    source = source or ("prompt" if sys.stdin.isatty() else "stdin")
    if source == "none":
        return None
    if source == "env":
        found = os.environ.get(CLIENT_SECRET) or ""
    elif source == "stdin":
        found = sys.stdin.readline(MAX_SECRET).rstrip("\r\n")
    else:
        found = typer.prompt("Secret of the client", hide_input=True, err=True)
    if not found:
        empty = CLIENT_SECRET if source == "env" else "standard input"
        fail(f"{printable(empty)} has no secret; --secret-from says where it is", WRONG_USAGE)
    return found
