"""The messages of one subscription, no more at once than there are hands free."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fastpubsub.client import batches
from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import GIVE_BACK, RETURN, Delivery, Holder, Outcome, entrust, hold_of
from fastpubsub.client.handlers import Handler
from fastpubsub.client.leases import Leases
from fastpubsub.client.measuring import Measured
from fastpubsub.client.prefetching import Prefetch
from fastpubsub.client.pulling import Puller
from fastpubsub.client.reading import reader_of
from fastpubsub.client.settling import MAX_IDS, Settler
from fastpubsub.client.threads import Threads

logger = logging.getLogger("fastpubsub.client")

CANCEL_SECONDS = 5.0
"""For a handler that was cancelled to clean up."""

SETTLE_SECONDS = 10.0
"""For what was done last to be settled, when the server is away."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """The settings of a worker for a subscription."""

    subscription_id: str
    handler: Handler
    concurrency: int
    grace_seconds: float
    lease_seconds: int | None
    consumer_id: str | None
    prefetch_seconds: float
    measured: Measured


class Consumer:
    def __init__(
        self, client: AsyncConnection, subscriber: Subscriber, on_answered: Callable[[], None] = lambda: None
    ) -> None:
        self._handler = subscriber.handler
        self._slots = subscriber.concurrency
        self._batch_size = self._handler.batch_size or 1
        self._grace_seconds = subscriber.grace_seconds
        self._subscription_id = subscriber.subscription_id
        self._changed = asyncio.Event()
        self._settler = Settler(client, subscriber.subscription_id, self._changed.set)
        self._puller = Puller(
            client,
            subscriber.subscription_id,
            self._settler,
            subscriber.consumer_id,
            on_answered,
            reader_of(self._handler),
        )
        self._leases = Leases(client, subscriber.subscription_id, subscriber.lease_seconds)
        self._prefetch = Prefetch(self._slots * self._batch_size, subscriber.prefetch_seconds)
        self._line: deque[tuple[float, Delivery]] = deque()
        """Messages that wait for a free hand, and since when."""
        self._timer: asyncio.TimerHandle | None = None
        self._measured = subscriber.measured
        self._running = self._measured.running
        self._hurry = asyncio.Event()
        self._cancelling = False
        self._holder = Holder(self._leases.hold, self._leases.drop, self._settle, client.is_in_memory)
        self._threads = None if self._handler.is_async else Threads(self._slots)
        self._loop = asyncio.get_running_loop()

    @property
    def is_answered(self) -> bool:
        return self._puller.is_answered

    def hurry(self) -> None:
        self._hurry.set()

    async def run(self, stopping: asyncio.Event) -> None:
        logger.info("a worker starts: subscription_id=%s concurrency=%d", self._subscription_id, self._slots)
        pulling = asyncio.create_task(self._pull())
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([pulling, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            pulling.cancel()
            await self._drain()
        with suppress(asyncio.CancelledError):
            await pulling

    async def _pull(self) -> None:
        while True:
            while (batch_size := self._wanted()) <= 0:
                self._changed.clear()
                await self._changed.wait()
            if deliveries := await self._puller.pull(batch_size):
                self._take(deliveries)
            if self._puller.has_more:
                self._loop.call_soon(self._begin_free)  # once the next request is sent, which is answered meanwhile
            else:
                self._begin_free()
                await asyncio.sleep(0)  # in which what is done at once is done: the next pull settles it

    def _wanted(self) -> int:
        """For free hands, and for the line while the server is known to have more; nothing while much is to settle."""
        if self._settler.pending >= MAX_IDS:
            return 0
        ahead = len(self._line) - (self._slots - len(self._running)) * self._batch_size
        limit = self._prefetch.limit if self._puller.has_more else 0
        return limit - ahead if ahead * 2 <= limit else 0

    def _take(self, deliveries: list[Delivery]) -> None:
        entrust(deliveries, self._holder)
        self._leases.hold(*deliveries)
        now = self._loop.time()
        self._line.extend((now, delivery) for delivery in deliveries)
        self._prefetch.leased(deliveries[0].lease_seconds)

    def _begin_free(self) -> None:
        while self._line and len(self._running) < self._slots:
            self._begin()
        if self._timer is None:
            self._watch_line()

    def _begin(self) -> None:
        now = self._loop.time()
        if self._handler.batch_size is None:
            work = self._process(self._line.popleft()[1], now)
        else:
            count = min(len(self._line), self._batch_size)
            work = self._process_batch([self._line.popleft()[1] for _ in range(count)], now)
        self._running[self._loop.create_task(work)] = now

    async def _process(self, delivery: Delivery, begun: float) -> None:
        self._measured.in_flight += 1
        outcome = await self._handler(delivery, self._threads)
        seconds = self._loop.time() - begun
        self._end(delivery, outcome, seconds)
        self._prefetch.finished(seconds)
        self._go_on()

    async def _process_batch(self, deliveries: list[Delivery], begun: float) -> None:
        self._measured.in_flight += len(deliveries)
        outcomes = await batches.handle(self._handler, deliveries, self._threads)
        seconds = self._loop.time() - begun
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            self._end(delivery, outcome, seconds / len(deliveries))
        self._prefetch.finished(seconds)
        self._go_on()

    def _end(self, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        if outcome.kind == "nack" and outcome.delay_seconds is None and self._cancelling:
            outcome = GIVE_BACK
        self._leases.drop(delivery)
        hold = hold_of(delivery)
        if not hold.is_settled and not hold.is_lost and (left := hold.left(outcome)) is not None:
            self._settler.add(delivery, left)
        self._measured.finished(outcome.kind, seconds)

    def _go_on(self) -> None:
        del self._running[asyncio.current_task()]  # type: ignore[arg-type]  # in which this runs
        if self._line:
            self._begin()
        self._changed.set()

    def _watch_line(self) -> None:
        """Gives back what waits for too long: others may have a free hand."""
        self._timer = None
        now = self._loop.time()
        while self._line and self._line[0][0] + self._prefetch.seconds <= now:
            self._return(self._line.popleft()[1])
            self._prefetch.overdue()
        if self._line:
            self._timer = self._loop.call_at(self._line[0][0] + self._prefetch.seconds, self._watch_line)

    def _return(self, delivery: Delivery) -> None:
        self._leases.drop(delivery)
        if not delivery.lease_lost:
            self._settler.add(delivery, RETURN)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settles for handlers that do it themselves."""
        self._settler.add(delivery, outcome)

    async def _drain(self) -> None:
        while self._line:
            self._return(self._line.popleft()[1])
        leaving = asyncio.create_task(self._leave())
        if self._running:
            await self._wait(self._grace_seconds)
        if left := list(self._running):
            logger.warning(
                "%d messages were not finished in time and were given back: subscription_id=%s",
                len(left),
                self._subscription_id,
            )
            self._cancelling = True
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_SECONDS)
        await leaving
        await self._settler.flush(SETTLE_SECONDS)
        await self._leases.close()
        if self._threads is not None:
            self._threads.close()
        logger.info("a worker has stopped: subscription_id=%s", self._subscription_id)

    async def _leave(self) -> None:
        for delivery in await self._puller.leave():
            self._settler.add(delivery, RETURN)

    async def _wait(self, seconds: float) -> None:
        """Waits until all have finished, the time is over, or the wait is ended."""
        finished = asyncio.create_task(asyncio.wait(list(self._running)))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([finished, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, hurry):
            task.cancel()
