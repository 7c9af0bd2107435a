"""How much an endpoint gets at once, whether it gets anything, and what all of them together may take."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

FIRST_CONCURRENCY = 4
HALVING_SECONDS = 1.0
"""In which an endpoint that cannot keep up is noticed once."""

FAILURES = 5
"""In a row, after which the breaker opens."""

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
BURST_SECONDS = 0.05


class Concurrency:
    """Doubles with each round of answers until an endpoint cannot keep up; then it is halved, and grows by one.

    As TCP begins and avoids congestion (RFC 5681).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(most, FIRST_CONCURRENCY))
        self._is_starting = True
        self._halved = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def succeeded(self) -> None:
        self._limit = min(self._most, self._limit + (1.0 if self._is_starting else 1 / self._limit))

    def overloaded(self, now: float) -> None:
        self._is_starting = False
        if now >= self._halved + HALVING_SECONDS:
            self._halved = now
            self._limit = max(1.0, self._limit / 2)


class Breaker:
    """Closed; open after failures in a row, when nothing is pushed; half-open, when one message is tried."""

    def __init__(self) -> None:
        self.failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self.closed_until = 0.0
        """When the pause ends."""

    @property
    def is_half_open(self) -> bool:
        return self.failures >= FAILURES

    @property
    def is_suspect(self) -> bool:
        """Whether the last push failed."""
        return self.failures > 0

    def seconds(self, now: float) -> float:
        """Until something may be pushed."""
        return max(self.closed_until - now, 0.0)

    def succeeded(self) -> None:
        self.failures = 0
        self._pause = FIRST_PAUSE_SECONDS

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= FAILURES and now >= self.closed_until:
            self.closed_until = now + self._pause * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def refused(self, now: float) -> None:
        """As after so many failures that it opens."""
        self.failures = max(self.failures, FAILURES - 1)
        self.failed(now)

    def hold(self, until: float) -> None:
        """The endpoint has said when to come again."""
        self.closed_until = max(self.closed_until, until)


class Gate:
    """What all endpoints of a process share, so that pushing leaves the event loop to others."""

    def __init__(self, most: int, per_second: int | None) -> None:
        """At most so many requests on their way, and begun in a second; None for as many as there are."""
        self._most = most
        self._places = asyncio.Semaphore(most)
        self._suspects = asyncio.Semaphore(max(1, most // 2))
        self.active = 0
        """Endpoints with a request that was claimed for them."""
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._next = 0.0

    @property
    def share(self) -> int:
        """Of one endpoint: slow ones do not take the places of all others."""
        return max(1, self._most // max(self.active, 1))

    async def wait(self, *, is_suspect: bool) -> None:
        """Until what is claimed can be pushed at once."""
        async with self.place(is_suspect=is_suspect):
            pass

    @asynccontextmanager
    async def place(self, count: int = 0, *, is_suspect: bool) -> AsyncIterator[None]:
        """Of so many requests. Suspects take half of the places at most: who never answers holds a place for long."""
        async with self._suspects if is_suspect else nullcontext(), self._places:
            now = asyncio.get_running_loop().time()
            begin = max(self._next, now - BURST_SECONDS)
            self._next = begin + count * self._interval
            if begin > now:
                await asyncio.sleep(begin - now)
            yield
