"""Rounds of several arms in turns, and the ratio of two of them."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError

Arm = Callable[[float], float]
"""Runs for so many seconds; a rate."""

STEADY = 0.05
"""From quartile to quartile, of the median: then more rounds would say the same."""

LONGEST_SECONDS = 10.0
"""From there on a rate of nothing is believed."""


@dataclass(frozen=True)
class Spread:
    """Some values of the same thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return lower, upper


def interleave(
    arms: Sequence[Arm], rounds: int, seconds: float, warm_up_seconds: float, most_rounds: int = 0
) -> list[Spread]:
    """The rates of each arm; every second round goes through them backwards.

    Up to `most_rounds` as long as the ratio of any two arms is not `STEADY`.
    """
    for arm in arms:
        _play(arm, warm_up_seconds)
    rates: list[list[float]] = [[] for _ in arms]
    for number in range(max(rounds, most_rounds)):
        if number >= rounds and _are_steady(rates):
            break
        places = range(len(arms))
        for place in places if number % 2 == 0 else reversed(places):
            rates[place].append(_play(arms[place], seconds))
    return [Spread(values) for values in rates]


def _are_steady(rates: Sequence[Sequence[float]]) -> bool:
    if any(0 in values for values in rates):
        return False
    spreads = (ratio(Spread(one), Spread(other)) for one, other in itertools.combinations(rates, 2))
    return all(spread.quartiles[1] - spread.quartiles[0] <= STEADY * spread.median for spread in spreads)


def _play(arm: Arm, seconds: float) -> float:
    """Its rate. On a busy machine nothing at all may happen in a short round: then one of twice the time is played."""
    while (rate := arm(seconds)) == 0 and seconds < LONGEST_SECONDS:
        seconds *= 2
    return rate


def ratio(above: Spread, below: Spread) -> Spread:
    """Round by round: what both arms of a round suffered cancels out."""
    if not all(below.values):
        idle = sum(not value for value in below.values)
        raise BenchmarkError(
            f"one side did nothing in {idle} of {len(below.values)} rounds, of up to {LONGEST_SECONDS:g} s and more: "
            "nothing can be divided by that; look what stood still"
        )
    return Spread([one / other for one, other in zip(above.values, below.values, strict=True)])
