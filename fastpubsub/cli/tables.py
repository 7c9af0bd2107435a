"""Tables for terminals, written as the rows come: the first of them decide about the widths."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastpubsub.cli.exits import printable

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
        """Before the first rows their titles."""
        cells = [[text_of(row.get(column.name)) for column in self._columns] for row in rows]
        if self._widths is None:
            cells.insert(0, [column.title for column in self._columns])
            self._widths = self._fit(cells)
        widths = self._widths
        joined = (GAP.join(map(cropped, line, widths)).rstrip() for line in cells)
        return [cropped(line, self._width).rstrip() for line in joined]

    def _fit(self, cells: list[list[str]]) -> list[int]:
        """As wide as their content; where that is too much, the one that grows loses first, then the widest."""
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
    return printable(json.dumps(value, ensure_ascii=False))
