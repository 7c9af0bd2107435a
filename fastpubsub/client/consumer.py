"""The messages of one subscription, no more at once than there are hands free."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.deliveries import GIVE_BACK, NACK, Delivery, Holder, Outcome, entrust
from fastpubsub.client.handlers import Handler
from fastpubsub.client.leases import Leases
from fastpubsub.client.pulling import Puller
from fastpubsub.client.settling import MAX_IDS, Settler

logger = logging.getLogger("fastpubsub.client")

THREADS = "fastpubsub-worker"
"""How the names of the threads of plain functions begin."""

CANCEL_SECONDS = 5.0
"""For a handler that was cancelled to clean up."""

SETTLE_SECONDS = 10.0
"""For what was done last to be settled, when the server is away."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What a worker was told about a subscription."""

    subscription_id: str
    handler: Handler
    concurrency: int
    grace_seconds: float
    lease_seconds: int | None
    consumer_id: str | None


class Consumer:
    def __init__(self, client: AsyncClient, subscriber: Subscriber) -> None:
        self._handler = subscriber.handler
        self._slots = subscriber.concurrency
        self._grace_seconds = subscriber.grace_seconds
        self._subscription_id = subscriber.subscription_id
        self._puller = Puller(client, subscriber.subscription_id, subscriber.consumer_id)
        self._freed = asyncio.Event()
        self._settler = Settler(client, subscriber.subscription_id, self._freed.set)
        self._leases = Leases(client, subscriber.subscription_id, subscriber.lease_seconds)
        self._running: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self._cancelling = False
        self._holder = Holder(self._leases.hold, self._leases.drop, self._settle)
        self._threads = None if self._handler.is_async else ThreadPoolExecutor(self._slots, THREADS)

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
            while self._free() <= 0:
                self._freed.clear()
                await self._freed.wait()
            for delivery in await self._puller.pull(self._free()):
                entrust(delivery, self._holder)
                self._leases.hold(delivery)
                task = asyncio.create_task(self._process(delivery))
                self._running.add(task)
                task.add_done_callback(self._finished)

    def _free(self) -> int:
        """Handlers that could take a message; none while too much waits to be settled."""
        return 0 if self._settler.pending >= MAX_IDS else self._slots - len(self._running)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._freed.set()

    async def _process(self, delivery: Delivery) -> None:
        outcome = NACK
        try:
            outcome = await self._handler(delivery, self._threads)
        except asyncio.CancelledError:
            outcome = GIVE_BACK if self._cancelling else NACK
            raise
        finally:
            self._leases.drop(delivery)
            if not delivery.is_settled and not delivery.lease_lost:
                self._settler.add(delivery, outcome)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """For handlers that do it themselves."""
        self._settler.add(delivery, outcome)

    async def _drain(self) -> None:
        if self._running:
            await self._wait(self._grace_seconds)
        if left := list(self._running):
            logger.warning(
                "%d messages were not finished in time and are given back: subscription_id=%s",
                len(left),
                self._subscription_id,
            )
            self._cancelling = True
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_SECONDS)
        await self._settler.flush(SETTLE_SECONDS)
        await self._leases.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        logger.info("a worker has stopped: subscription_id=%s", self._subscription_id)

    async def _wait(self, seconds: float) -> None:
        """Until all have finished, the time is over, or nobody wants to wait any more."""
        finished = asyncio.create_task(asyncio.wait(list(self._running)))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([finished, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, hurry):
            task.cancel()
