"""Tables for terminals, written as the rows come: the first of them decide about the widths."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from fastpubsub.cli.colors import styled
from fastpubsub.cli.exits import printable
from fastpubsub.cli.records import Number

GAP = "  "
NARROWEST, LEAST, NARROW = 4, 8, 10
AGE = 9
"""Columns for an age, so that those of later rows have room."""

TITLES = {
    "delivery_attempts": "ATTEMPTS",
    "max_delivery_attempts": "ATTEMPTS",
    "ack_deadline_seconds": "DEADLINE",
    "retention_seconds": "RETENTION",
    "is_active": "ACTIVE",
    "milliseconds": "MS",
    "created_at": "CREATED",
    "died_at": "DIED",
    "failed_at": "FAILED",
    "delivery_attempt": "ATTEMPT",
    "oldest_leased_at": "OLDEST_LEASE",
    "topic_id": "TOPIC",
    "subscription_id": "SUBSCRIPTION",
    "metrics.delivered": "LEASED",
    "metrics.oldest_ahead_seconds": "OLDEST",
    "metrics.rates.published": "PUBLISHED/S",
    "metrics.rates.delivered": "DELIVERED/S",
    "metrics.rates.acked": "ACKED/S",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


@dataclass(frozen=True)
class Column:
    """`grows`: the last of a table, which takes what is left of the line."""

    name: str
    grows: bool = False

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name.rpartition(".")[2].upper())


class Times(Enum):
    exact = "2026-01-31T12:00:00Z"
    age = "3 m ago"
    both = "2026-01-31T12:00:00Z (3 m ago)"


class Table:
    def __init__(self, columns: Sequence[Column], width: int, times: Times = Times.exact) -> None:
        self._columns = columns
        self._width = width
        self._times = times
        self._widths: list[int] | None = None

    def lines(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Prints the titles before the first rows."""
        cells = [[self._cell(row, column.name) for column in self._columns] for row in rows]
        has_titles = self._widths is None
        if self._widths is None:
            cells.insert(0, [column.title for column in self._columns])
            self._widths = self._fit(cells)
        widths = self._widths
        joined = (GAP.join(map(cropped, line, widths)).rstrip() for line in cells)
        lines = [cropped(line, self._width).rstrip() for line in joined]
        return [styled(lines[0], "bold"), *lines[1:]] if has_titles else lines

    def _cell(self, row: Mapping[str, Any], name: str) -> str:
        value = member(row, name)
        if value is not None and "." in name:
            value = figure(name, value)
        text = text_of(value)
        return text if self._times == Times.exact else with_age(text, is_alone=self._times == Times.age)

    def _fit(self, cells: list[list[str]]) -> list[int]:
        """Makes columns as wide as their content; if too wide, the one that grows shrinks first, ids last."""
        from rich.cells import cell_len

        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        room = self._width - len(GAP) * (len(widths) - 1)
        if self._columns[-1].grows:
            widths[-1] = max(room - sum(widths[:-1]), min(widths[-1], NARROW))
        while sum(widths) > room and max(widths) > NARROWEST:
            # An id is copied into the next command.
            others = [place for place, one in enumerate(self._columns) if one.name != "id" and widths[place] > LEAST]
            widths[max(others or range(len(widths)), key=widths.__getitem__)] -= 1
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


def member(row: Mapping[str, Any], name: str) -> Any:
    """`metrics.acked` is the member of a member; None when there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def figure(name: str, value: Any) -> Any:
    """As much of a rate or an age as people read."""
    if not isinstance(value, Number):
        return value
    if name.endswith("_seconds"):
        return duration(int(Decimal(value)))
    return rounded(float(value)) if ".rates." in name else value


def rounded(number: float) -> str:
    """With two digits after the point, where there are digits that matter."""
    return f"{number:,.2f}".rstrip("0").rstrip(".") if number < 100 else f"{number:,.0f}"


def with_age(text: str, *, is_alone: bool = False) -> str:
    """Adds to a time, as `text_of` writes it, how long ago that is, or says only that."""
    if not _TIME.fullmatch(text):
        return text
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    return ago(seconds).ljust(AGE) if is_alone else f"{text} ({ago(seconds)})"


def ago(seconds: int) -> str:
    """Such as `3 m ago`, or `in 3 m`."""
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(seconds)}"


def duration(seconds: int) -> str:
    """Such as `3 m`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if abs(seconds) >= length or unit == "s":
            break
    return f"{abs(seconds) // length} {unit}"


def json_of(value: Any) -> str:
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_of(name)}: {json_of(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
