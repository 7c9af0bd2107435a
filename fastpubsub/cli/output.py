"""Standard output: tables for terminals, lines of JSON for programs."""

import os
import select
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fastpubsub.cli.exits import printable
from fastpubsub.cli.records import Record
from fastpubsub.cli.tables import Column, Table, text_of

AsJson = Annotated[
    bool | None,
    typer.Option(
        "--json/--table", help="Lines of JSON, or a table; a table on a terminal, unless you say.", show_default=False
    ),
]


class Output:
    def __init__(self, as_json: bool | None, *columns: str, grows: str | None = None) -> None:
        self._as_json = not sys.stdout.isatty() if as_json is None else as_json
        shown = [Column(name, name == grows) for name in columns]
        self._table = Table(shown, shutil.get_terminal_size().columns)

    @property
    def as_json(self) -> bool:
        return self._as_json

    def rows(self, records: Sequence[Record]) -> None:
        """Returns when they are written; an empty table has its titles."""
        if self._as_json:
            write(b"".join(record.line + b"\n" for record in records))
        else:
            write_text("".join(f"{line}\n" for line in self._table.lines([record.fields for record in records])))

    def one(self, record: Record) -> None:
        """All that there is to know: a line for each field, nothing cropped."""
        if self._as_json:
            write(record.line + b"\n")
            return
        width = max(map(len, record.fields), default=0)
        lines = (f"{printable(name):{width}}  {text_of(value)}\n" for name, value in record.fields.items())
        write_text("".join(lines))


def write_text(text: str) -> None:
    write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def write(data: bytes) -> None:
    """Without a buffer: what is not written when the command is interrupted is not written later either."""
    descriptor = sys.stdout.fileno()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def is_read() -> bool:
    """False when whoever read standard output has gone, which one would otherwise notice with the next line."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))
