"""Tables for terminals, written as the rows come: the first of them decide about the widths."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastpubsub.cli.exits import printable
from fastpubsub.cli.records import Number

GAP = "  "
NARROWEST, NARROW = 4, 10
TITLES = {
    "delivery_attempts": "ATTEMPTS",
    "max_delivery_attempts": "ATTEMPTS",
    "ack_deadline_seconds": "DEADLINE",
    "retention_seconds": "RETENTION",
    "is_active": "ACTIVE",
    "created_at": "CREATED",
    "died_at": "DIED",
    "topic_id": "TOPIC",
    "subscription_id": "SUBSCRIPTION",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


@dataclass(frozen=True)
class Column:
    """`grows`: the last of a table, which takes what is left of the line."""

    name: str
    grows: bool = False

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name.upper())


class Table:
    def __init__(self, columns: Sequence[Column], width: int) -> None:
        self._columns = columns
        self._width = width
        self._widths: list[int] | None = None

    def lines(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Prints the titles before the first rows."""
        cells = [[text_of(row.get(column.name)) for column in self._columns] for row in rows]
        if self._widths is None:
            cells.insert(0, [column.title for column in self._columns])
            self._widths = self._fit(cells)
        widths = self._widths
        joined = (GAP.join(map(cropped, line, widths)).rstrip() for line in cells)
        return [cropped(line, self._width).rstrip() for line in joined]

    def _fit(self, cells: list[list[str]]) -> list[int]:
        """Makes columns as wide as their content; if too wide, the one that grows shrinks first, then the widest."""
        from rich.cells import cell_len

        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        room = self._width - len(GAP) * (len(widths) - 1)
        if self._columns[-1].grows:
            widths[-1] = max(room - sum(widths[:-1]), min(widths[-1], NARROW))
        while sum(widths) > room and max(widths) > NARROWEST:
            widths[widths.index(max(widths))] -= 1
        return widths


def cropped(text: str, width: int) -> str:
    """Or filled up; letters of Asia and emoji are two wide."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def text_of(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        time = _TIME.fullmatch(value)
        return f"{time[1]}Z" if time else printable(value)
    return printable(json_of(value))


def with_age(text: str) -> str:
    """Adds to a time, as `text_of` writes it, how long ago that is, when somebody looks at it."""
    if not (sys.stdout.isatty() and _TIME.fullmatch(text)):
        return text
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    return f"{text} ({ago(seconds)})"


def ago(seconds: int) -> str:
    """Such as `3 m ago`, or `in 3 m`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if abs(seconds) >= length or unit == "s":
            break
    count = f"{abs(seconds) // length} {unit}"
    return f"{count} ago" if seconds >= 0 else f"in {count}"


def json_of(value: Any) -> str:
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_of(name)}: {json_of(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
