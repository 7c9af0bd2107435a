"""Shared by the groups of commands."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from fastpubsub.cli.commands import Commands
from fastpubsub.cli.connection import connected
from fastpubsub.cli.exits import WRONG_USAGE, fail, note, printable
from fastpubsub.cli.helping import Group
from fastpubsub.cli.output import Output
from fastpubsub.cli.records import PAGE, items, pages, single

if TYPE_CHECKING:
    from fastpubsub.client.requests import Request


def group(help: str) -> Commands:  # noqa: A002 - typer's word for it
    return Commands(help=help, cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def list_all(
    output: Output,
    build: "Callable[[int, int], Request[Any]]",
    limit: int | None,
    offset: int,
    member: str = "data",
) -> None:
    """Page by page, so that it does not matter how many there are."""
    with connected() as client:
        found = False
        for page in pages(client, build, limit, offset, member):
            output.rows(page)
            found = True
        if not found:
            output.rows([])


def list_by_token(
    output: Output, build: "Callable[..., Request[Any]]", limit: int | None = None, offset: int = 0
) -> None:
    """Page by page, each after the one before: the last costs what the first does."""
    page: dict[str, Any] = {"offset": offset} if offset else {}
    with connected() as client:
        while True:
            answer = client.send(single(build(**page, limit=PAGE if limit is None else min(limit, PAGE))))
            rows = items(answer)
            output.rows(rows)
            limit = None if limit is None else limit - len(rows)
            page = {"page_token": answer.fields.get("next_page_token")}
            if page["page_token"] is None or limit == 0:
                return


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
            note(f"deleted {kind} {id_}")


def confirm(question: str, yes: bool) -> None:
    """Asks for confirmation; without a terminal, only `--yes` confirms."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(f"{question} This is not a terminal, so nobody can confirm: add --yes to do it", WRONG_USAGE)
    typer.confirm(question, abort=True, err=True)
