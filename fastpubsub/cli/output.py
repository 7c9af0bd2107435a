"""Standard output: tables for terminals, lines of JSON for programs."""

import os
import select
import shutil
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fastpubsub.cli.colors import styled
from fastpubsub.cli.exits import FAILED, fail, printable, printable_json
from fastpubsub.cli.records import Record
from fastpubsub.cli.tables import Column, Table, Times, text_of, with_age

AsJson = Annotated[
    bool | None,
    typer.Option(
        "--json/--table",
        help="Print lines of JSON or a table. The default is a table on a terminal, and JSON elsewhere.",
        show_default=False,
    ),
]


class Format(StrEnum):
    json = "json"
    yaml = "yaml"
    csv = "csv"
    table = "table"
    wide = "wide"
    id = "id"


TABLES = (Format.table, Format.wide)
GROWING = ("detail", "payload")
UNCROPPED = 10_000
"""Columns of a table that is not cropped."""

chosen: Format | None = None
"""With `--output`; `commands.py` sets it."""


class Output:
    def __init__(self, as_json: bool | None, *columns: str, grows: str | None = None) -> None:
        as_json = not sys.stdout.isatty() if as_json is None else as_json
        self._format = chosen or (Format.json if as_json else Format.table)
        self._columns = columns
        self._has_titles = False
        is_wide = self._format == Format.wide
        shown = [Column(name, name == grows and not is_wide) for name in columns]
        self.width = UNCROPPED if is_wide else shutil.get_terminal_size().columns
        self._table = Table(shown, self.width, terminal_times(is_wide=is_wide))

    @property
    def as_json(self) -> bool:
        """Whether it is for programs."""
        return self._format not in TABLES

    def rows(self, records: Sequence[Record]) -> None:
        """Returns when they are written; an empty table has its titles."""
        if self._format in TABLES:
            write_text("".join(f"{line}\n" for line in self._table.lines([record.fields for record in records])))
        else:
            self._write_for_programs(records)

    def _write_for_programs(self, records: Sequence[Record]) -> None:
        if self._format == Format.json:
            write(b"".join(map(_json_line, records)))
            return
        from fastpubsub.cli.formats import csv_lines, ids, yaml_documents

        fields = [record.fields for record in records]
        if self._format == Format.id:
            write_text(ids(fields))
        elif self._format == Format.yaml:
            write_text(yaml_documents(fields))
        else:
            write_text(csv_lines(fields, self._columns, with_titles=not self._has_titles))
            self._has_titles = True

    def one(self, record: Record) -> None:
        """All that there is to know: a line for each field, nothing cropped."""
        if self._format not in TABLES:
            self._write_for_programs([record])
            return
        width = max(map(len, record.fields), default=0)
        shown = with_age if sys.stdout.isatty() else str
        names = {name: styled(f"{printable(name):{width}}", "bold") for name in record.fields}
        write_text("".join(f"{names[name]}  {shown(text_of(value))}\n" for name, value in record.fields.items()))


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """The lines of one that is whole."""
    return Table([Column(one, one in GROWING) for one in columns], width, terminal_times()).lines(rows)


def terminal_times(*, is_wide: bool = False) -> Times:
    """How tables write times."""
    return Times.exact if not sys.stdout.isatty() else Times.both if is_wide else Times.age


def _json_line(record: Record) -> bytes:
    """Programs get every byte as it is; on a terminal, nothing that would steer it."""
    line = printable_json(record.line.decode(errors="replace")).encode() if sys.stdout.isatty() else record.line
    return line + b"\n"


def reopen_closed() -> None:
    """A command that is started without a standard stream reads and writes nothing there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def write_text(text: str) -> None:
    write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def write(data: bytes) -> None:
    """Writes without a buffer: after an interruption nothing is written later. Exits if the disk is full."""
    descriptor = sys.stdout.fileno()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"standard output: {error.strerror}", FAILED)


def is_read() -> bool:
    """Returns False when the reader of standard output has gone, which the next line would reveal otherwise."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))
