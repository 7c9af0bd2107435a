"""What a run found."""

from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.pairs import Spread

NOISE = (0.9, 1.1)
"""Where the no-op route against itself must lie: beyond, the machine was too restless for any figure to count."""


class Verdict(StrEnum):
    MISSING = "not measurable yet"
    MISSED = "NOT REACHED"
    UNCLEAR = "NOT JUDGED"
    """The median reaches what the worse quartile does not: the machine was too restless, so measure again."""
    REACHED = "reached"
    AIM = "aim reached"


@dataclass(frozen=True)
class Measure:
    """A figure of the table; counts as reached when the worse quartile reaches it."""

    name: str
    must: float
    aim: float
    spread: Spread | None = None
    figures: str = ""
    """What the ratio is made of, or why there is none."""
    smaller_is_better: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.spread is None:
            return Verdict.MISSING
        sign = -1 if self.smaller_is_better else 1
        lower, upper = self.spread.quartiles
        worse = sign * (upper if self.smaller_is_better else lower)
        if worse >= sign * self.aim:
            return Verdict.AIM
        if worse >= sign * self.must:
            return Verdict.REACHED
        return Verdict.UNCLEAR if sign * self.spread.median >= sign * self.must else Verdict.MISSED


@dataclass(frozen=True)
class CostLine:
    """Of one message; times in microseconds of CPU."""

    name: str
    messages: int
    server: float
    postgres: float
    generator: float
    transactions: float
    waits: dict[str, float]
    """Shares of the samples."""


@dataclass(frozen=True)
class Delivery:
    """Where the messages of a subscription went: `lost` and `twice` must be 0."""

    name: str
    published: int
    lost: int
    twice: int | None
    """None where only the totals were compared."""


@dataclass
class Results:
    title: str
    noop: list[Spread] = field(default_factory=list)
    """The no-op route against itself, at the start and at the end."""
    measures: list[Measure] = field(default_factory=list)
    costs: list[CostLine] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Rows without a figure, and why."""
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For the plot: seconds and values by name."""
    environment: dict[str, str] = field(default_factory=dict)

    code_changed: bool = False
    """Rows start their servers one after the other, from the files as they are then."""

    @property
    def is_void(self) -> bool:
        lowest, highest = NOISE
        return self.code_changed or any(not lowest <= spread.median <= highest for spread in self.noop)

    @property
    def is_whole(self) -> bool:
        """Nothing was lost, nothing came twice."""
        return not any(delivery.lost or delivery.twice for delivery in self.deliveries)
