"""How long everything takes."""

from dataclasses import dataclass

VERDICT_PAIRS = 5


@dataclass(frozen=True)
class Plan:
    name: str
    pairs: int
    """Of interleaved rounds, at least."""
    seconds: float
    """Of a round."""
    warm_up_seconds: float
    held_pairs: int
    held_before_seconds: int
    held_seconds: int
    """How long another session's snapshot is held before the second look."""
    minute_seconds: int
    """When memory is looked at first, after the start of the load."""
    backlog: int
    latency_seconds: float
    run_in_megabytes: int = 0
    """What PostgreSQL writes before anything is measured."""
    held_warm_up_seconds: int = 3
    endpoints: int = 1000
    """Of as many subscriptions, which are pushed at once."""
    listeners: int = 1000
    most_pairs: int = 0
    """As long as their ratios differ; 0: not more."""
    reuse: bool = False
    """One server for all rows, which costs less time and is no measurement."""

    @property
    def is_enough(self) -> bool:
        return min(self.pairs, self.held_pairs) >= VERDICT_PAIRS


NORMAL = Plan("bench", 5, 0.7, 0.5, 5, 6, 20, 60, 1_000_000, 15.0, 800, most_pairs=15)
QUICK = Plan("bench-quick", 3, 0.5, 0.3, 1, 3, 10, 5, 200_000, 3.0)
LONG = Plan("bench-long", 15, 10.0, 2.0, 5, 20, 600, 60, 10_000_000, 120.0, 800)
SMOKE = Plan(
    "smoke", 1, 0.12, 0.05, 1, 1, 1, 1, 30_000, 0.3, held_warm_up_seconds=1, endpoints=50, listeners=50, reuse=True
)
