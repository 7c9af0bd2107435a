"""What the peers did, as a Markdown table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.pairs import Spread

NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    spread: Spread
    smaller_is_better: bool = False
    note: str = ""

    def __str__(self) -> str:
        """Median, and the worse quartile in brackets."""
        lower, upper = self.spread.quartiles
        worse = upper if self.smaller_is_better else lower
        quartile = f" ({_number(worse)})" if len(self.spread.values) > 1 else ""
        return f"{_number(self.spread.median)}{quartile}{self.note}"


@dataclass
class Table:
    peers: Sequence[str]
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def add(self, row: str, cells: Mapping[str, Cell]) -> None:
        self.rows.setdefault(row, {}).update(cells)

    def __str__(self) -> str:
        lines = [["", *self.peers], ["---"] * (len(self.peers) + 1)]
        for row, cells in self.rows.items():
            best = _best(cells)
            found = [_bold(str(cells[peer]), peer == best) if peer in cells else NOTHING for peer in self.peers]
            lines.append([row, *found])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def half_load(published: float, handled: float) -> float:
    """Messages a second: half of what fills the machine when the same messages are published and handled."""
    return 0.5 / (1 / published + 1 / handled)


def _best(cells: Mapping[str, Cell]) -> str | None:
    """Nobody alone, and nobody where the notes say that they did different things."""
    if len(cells) == 1 or any(cell.note for cell in cells.values()):
        return None
    sign = -1 if any(cell.smaller_is_better for cell in cells.values()) else 1
    return max(cells, key=lambda peer: sign * cells[peer].spread.median)


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
