"""What the groups of commands have in common."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import note, printable
from fastpubsub.cli.output import Output
from fastpubsub.cli.records import pages, single

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request


def group(help: str) -> typer.Typer:  # noqa: A002 - typer's word for it
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def list_all(output: Output, build: "Callable[[int, int], Request[Any]]", limit: int | None, offset: int) -> None:
    """Page by page, so that it does not matter how many there are."""
    with connected() as client:
        found = False
        for page in pages(client, build, limit, offset):
            output.rows(page)
            found = True
        if not found:
            output.rows([])


def show(output: Output, request: "Request[Any]") -> None:
    with connected() as client:
        output.one(client.send(single(request)))


def delete_each(
    kind: str, ids: list[str], consequence: str, build: "Callable[[str], Request[None]]", yes: bool
) -> None:
    names = ", ".join(map(printable, ids))
    confirm(f"Delete the {kind} {names}{consequence}?", yes)
    with connected() as client:
        for id_ in ids:
            client.send(build(id_))
            note(f"deleted {kind} {printable(id_)}")


def confirm(question: str, yes: bool) -> None:
    """People are asked; programs know what they do."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(question, abort=True, err=True)
