"""Processes messages: pulls no more than it has hands free, keeps leases, settles, and drains when it stops."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.consumer import Consumer, Subscriber
from fastpubsub.client.handlers import Handler
from fastpubsub.stopping import Orders

Function = TypeVar("Function", bound=Callable[..., Any])

CONCURRENCY = 10
GRACE_SECONDS = 30.0
PREFETCH_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """`url`, `client_id` and `client_secret` as for `AsyncClient`; nothing is opened until it runs.

    `concurrency` is how many messages of a subscription are worked on at once; `grace_seconds` how long handlers may go
    on when the worker stops, before they are cancelled and their messages given back; `prefetch_seconds` how long a
    message may wait in this process for a handler to be free, before another consumer can have it.
    """

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
    ) -> None:
        self._address = (url, client_id, client_secret)
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._consumer_id = consumer_id
        self._prefetch_seconds = prefetch_seconds
        self._subscribers: list[Subscriber] = []
        self._stopping: asyncio.Event | None = None
        self._consumers: list[Consumer] = []
        self.on_answered: Callable[[], None] = lambda: None
        """Called when a subscription begins to be pulled, at the start and after failures; see `is_answered`."""

    def subscriber(
        self, subscription_id: str, *, concurrency: int | None = None, lease_seconds: int | None = None
    ) -> Callable[[Function], Function]:
        """Registers the function that processes the messages of a subscription.

        It is called with the payload as its annotation says, and with the message when it has an argument annotated
        `Message` or `Delivery`. `lease_seconds` is how long each extension of a lease lasts, by default the deadline of
        the subscription.
        """

        def register(function: Function) -> Function:
            self._subscribers.append(
                Subscriber(
                    subscription_id,
                    Handler(function),
                    concurrency or self._concurrency,
                    self._grace_seconds,
                    lease_seconds,
                    self._consumer_id,
                    self._prefetch_seconds,
                )
            )
            return function

        return register

    @property
    def subscriptions(self) -> list[str]:
        return [subscriber.subscription_id for subscriber in self._subscribers]

    @property
    def is_answered(self) -> bool:
        """True while it runs and its last pull of each subscription was answered."""
        return self._stopping is not None and all(consumer.is_answered for consumer in self._consumers)

    def limit(self, concurrency: int) -> None:
        """Sets the concurrency of every subscriber."""
        self._subscribers = [replace(one, concurrency=concurrency) for one in self._subscribers]

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        asyncio.run(run_until_signal([self]))

    async def serve(self, client: AsyncClient | None = None) -> None:
        """Runs until `stop()`; raises errors that cannot pass, such as a missing subscription."""
        if self._stopping is not None:
            raise RuntimeError("this worker is already running")
        if client is None:
            async with AsyncClient(*self._address) as opened:
                await self._serve(opened)
        else:
            await self._serve(client)

    def stop(self, *, at_once: bool = False) -> None:
        """Ends pulling; `serve()` returns when the handlers have finished, or without waiting for them."""
        if self._stopping is not None:
            self._stopping.set()
            for consumer in self._consumers:
                if at_once:
                    consumer.hurry()

    async def _serve(self, client: AsyncClient) -> None:
        self._stopping = stopping = asyncio.Event()
        self._consumers = [Consumer(client, subscriber, self.on_answered) for subscriber in self._subscribers]

        async def consume(consumer: Consumer) -> None:
            try:
                await consumer.run(stopping)
            finally:
                stopping.set()

        try:
            await _all([consume(consumer) for consumer in self._consumers])
        finally:
            self._stopping = None


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
