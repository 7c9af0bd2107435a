"""Processes messages: pulls no more than it has hands free, keeps leases, settles, and drains when it stops."""

import asyncio
import gc
import itertools
import logging
import signal
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.consumer import Consumer, Subscriber
from fastpubsub.client.declaring import declare
from fastpubsub.client.dependencies import Solver, solve_plainly
from fastpubsub.client.measuring import Measured
from fastpubsub.client.pulling import PASSING, pause
from fastpubsub.client.router import Registration, Router, topics_of
from fastpubsub.client.topics import Topic
from fastpubsub.stopping import Orders

logger = logging.getLogger("fastpubsub.client")

CONCURRENCY = 10
GRACE_SECONDS = 30.0
PREFETCH_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker(Router):
    """`url`, `client_id` and `client_secret` as for `AsyncClient`; nothing is opened until it runs.

    `concurrency` is how many messages of a subscription are worked on at once; `grace_seconds` how long handlers may go
    on when the worker stops, before they are cancelled and their messages given back; `prefetch_seconds` how long a
    message may wait in this process for a handler to be free, before another consumer can have it.

    `topics` are declared at the start besides those of the subscribers; `declare=False` declares nothing, for a client
    that may not.
    """

    solver: Solver = staticmethod(solve_plainly)
    """What finds the values of arguments that are marked with `Depends`."""

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        concurrency: int = CONCURRENCY,
        grace_seconds: float = GRACE_SECONDS,
        consumer_id: str | None = None,
        prefetch_seconds: float = PREFETCH_SECONDS,
        topics: Iterable[Topic[Any]] = (),
        declare: bool = True,
    ) -> None:
        super().__init__()
        self._address = (url, client_id, client_secret)
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._consumer_id = consumer_id
        self._prefetch_seconds = prefetch_seconds
        self._declares = declare
        self._topics = list(topics)
        self._limit: int | None = None
        self._chosen: Collection[str] | None = None
        self._stopping: asyncio.Event | None = None
        self._consumers: list[Consumer] = []
        self._is_reached = False
        self._measured: dict[str, Measured] = {}
        self.on_answered: Callable[[], None] = lambda: None
        """Called when a subscription begins to be pulled, at the start and after failures; see `is_answered`."""
        self.on_finished: Callable[[], None] = lambda: None
        """Called for each message that a function has ended with."""

    @property
    def subscriptions(self) -> list[str]:
        return [one.subscription_id for one in self.registrations()]

    @property
    def is_answered(self) -> bool:
        """True while it runs and its last pull of each subscription was answered."""
        return self._stopping is not None and bool(self._consumers) and all(one.is_answered for one in self._consumers)

    @property
    def measured(self) -> list[Measured]:
        """The outcomes of the deliveries of each subscription, in this process."""
        return list(self._measured.values())

    @property
    def declared_topics(self) -> list[Topic[Any]]:
        """The topics that it was given besides those of its subscribers."""
        return list(self._topics)

    def registrations(self) -> Iterator[Registration]:
        return (one for one in super().registrations() if self._chosen is None or one.subscription_id in self._chosen)

    def choose(self, subscriptions: Collection[str]) -> None:
        """Keeps only the subscribers of these subscriptions."""
        self._chosen = subscriptions

    def limit(self, concurrency: int) -> None:
        """Sets the concurrency of every subscriber."""
        self._limit = concurrency

    async def declare(self, client: AsyncClient) -> None:
        """Creates the topics, subscriptions and schedules that its subscribers name, and brings them in line, once."""
        if self._declares:
            registrations = list(self.registrations())
            declarations = [one.declaration for one in registrations if one.declaration is not None]
            schedules = [one.schedule for one in registrations if one.schedule is not None]
            topics = {topic.id: topic for topic in [*topics_of(registrations), *self._topics]}
            await declare(client, topics.values(), declarations, schedules)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        asyncio.run(run_until_signal([self]))

    async def serve(self, client: AsyncClient | None = None) -> None:
        """Runs until `stop()`; raises permanent errors, such as a missing subscription."""
        if not self.subscriptions:
            raise RuntimeError("this worker has no subscribers, so it has nothing to do")
        if self._stopping is not None:
            raise RuntimeError("this worker is already running")
        if client is None:
            async with AsyncClient(*self._address) as opened:
                await self._serve(opened)
        else:
            await self._serve(client)

    def stop(self, *, at_once: bool = False) -> None:
        """Stops pulling; `serve()` returns when the handlers have finished, or without waiting for them."""
        if self._stopping is not None:
            self._stopping.set()
            for consumer in self._consumers:
                if at_once:
                    consumer.hurry()

    async def _serve(self, client: AsyncClient) -> None:
        self._stopping = stopping = asyncio.Event()
        try:
            if not await self._declare(client, stopping):
                return
            self._is_reached = False
            answered = partial(self._answered, client)
            self._consumers = [
                Consumer(client, self._subscriber(client, one), answered) for one in self.registrations()
            ]
            await _all([_consume(consumer, stopping) for consumer in self._consumers])
        finally:
            self._stopping, self._consumers = None, []

    def _answered(self, client: AsyncClient) -> None:
        if not self._is_reached:
            self._is_reached = True
            place = httpx.URL(client.url).netloc.decode()  # in which no password is
            logger.info("a worker has reached its server: server=%s subscriptions=%d", place, len(self._consumers))
        self.on_answered()

    async def _declare(self, client: AsyncClient, stopping: asyncio.Event) -> bool:
        """Tries until it works, or until the worker stops: then False."""
        for failures in itertools.count():
            try:
                await self.declare(client)
            except PASSING as error:
                if not failures:
                    logger.warning("the topics of a worker cannot be declared; trying again until it works: %s", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), pause(failures, error))
            else:
                break
            if stopping.is_set():
                return False
        return True

    def _subscriber(self, client: AsyncClient, registration: Registration) -> Subscriber:
        return Subscriber(
            registration.subscription_id,
            registration.handler.within(client, self.solver, registration.middlewares),
            1 if registration.ordered else self._limit or registration.concurrency or self._concurrency,
            self._grace_seconds,
            registration.lease_seconds,
            self._consumer_id,
            # What waits here would be worked on after a message before it has failed.
            0 if registration.ordered else self._prefetch_seconds,
            self._measured_of(registration.subscription_id),
        )

    def _measured_of(self, subscription_id: str) -> Measured:
        measured = self._measured.setdefault(subscription_id, Measured(subscription_id))
        measured.then = self.on_finished
        return measured


async def _consume(consumer: Consumer, stopping: asyncio.Event) -> None:
    try:
        await consumer.run(stopping)
    finally:
        stopping.set()


async def run_until_signal(workers: list[Worker]) -> None:
    """All at once; one that fails stops the others. A third signal does not wait for the handlers."""
    loop = asyncio.get_running_loop()
    orders = Orders()
    stopped = False

    def stop(*, at_once: bool = False) -> None:
        nonlocal stopped
        stopped = True
        for worker in workers:
            worker.stop(at_once=at_once)

    def signalled() -> None:
        orders.came()
        stop(at_once=orders.hurried)

    async def serve(worker: Worker) -> None:
        if stopped:  # by one before it, which a worker that does not run yet would not have heard
            return
        try:
            await worker.serve()
        finally:
            stop()

    for number in SIGNALS:
        loop.add_signal_handler(number, signalled)
    # Messages come and go by the hundred, and each full collection would walk over all that was loaded.
    gc.collect()
    gc.freeze()
    try:
        await _all([serve(worker) for worker in workers])
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _all(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Waits for all of them, and raises the first error."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
