"""What happened lately, in intervals, and what that is per second."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

INTERVAL_SECONDS = 5
"""Of the history."""

MINUTE = 60


def rates_of(past: dict[int, Counter[str]], now: datetime, names: Iterable[str]) -> dict[str, float]:
    """Per second, over the last minute that is over."""
    end = int(now.timestamp()) // INTERVAL_SECONDS * INTERVAL_SECONDS
    last = [past[at] for at in range(end - MINUTE, end, INTERVAL_SECONDS) if at in past]
    return {name: sum(counts[name] for counts in last) / MINUTE for name in names}
