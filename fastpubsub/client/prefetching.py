"""How many messages may wait in a worker for a free hand, so that the hands never wait for the network."""

from fastpubsub.client.pulling import MAX_BATCH

MAX_PREFETCH = 2 * MAX_BATCH
"""One batch waits while the next is on its way."""

WEIGHT = 0.1
"""Of a handler that was quicker than those before it; a slower one counts at once."""


class Prefetch:
    """As many messages as the handlers begin within `seconds`, at the pace of the slow ones; none until it is known."""

    def __init__(self, concurrency: int, seconds: float) -> None:
        self._concurrency = concurrency
        self._seconds = self._bound = seconds
        self._takes: float | None = None

    @property
    def seconds(self) -> float:
        """How long a message may wait."""
        return self._bound

    def leased(self, seconds: int) -> None:
        """A message waits for no longer than half of its lease."""
        self._bound = min(self._seconds, seconds / 2)

    def finished(self, seconds: float) -> None:
        """After a handler that took so long."""
        takes = self._takes
        self._takes = seconds if takes is None or seconds > takes else takes + (seconds - takes) * WEIGHT

    def overdue(self) -> None:
        """After a message has waited for too long."""
        self._takes = 2 * self._concurrency * self._bound

    @property
    def limit(self) -> int:
        if self._takes is None:
            return 0
        return min(MAX_PREFETCH, int(self._concurrency * self._bound / max(self._takes, 1e-6)))
