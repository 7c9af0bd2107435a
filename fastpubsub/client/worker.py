"""Processes messages: pulls no more than it has hands free, keeps leases, settles, and drains when it stops."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.consumer import Consumer, Subscriber
from fastpubsub.client.handlers import Handler

Function = TypeVar("Function", bound=Callable[..., Any])

CONCURRENCY = 10
GRACE_SECONDS = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """`url`, `client_id` and `client_secret` as for `AsyncClient`; nothing is opened until it runs.

    `concurrency` is how many messages of a subscription are worked on at once; `grace_seconds` how long handlers may go
    on when the worker stops, before they are cancelled and their messages given back.
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
    ) -> None:
        self._address = (url, client_id, client_secret)
        self._concurrency = concurrency
        self._grace_seconds = grace_seconds
        self._consumer_id = consumer_id
        self._subscribers: list[Subscriber] = []
        self._stopping: asyncio.Event | None = None
        self._consumers: list[Consumer] = []

    def subscriber(
        self, subscription_id: str, *, concurrency: int | None = None, lease_seconds: int | None = None
    ) -> Callable[[Function], Function]:
        """The function that processes the messages of a subscription.

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
                )
            )
            return function

        return register

    @property
    def subscriptions(self) -> list[str]:
        return [subscriber.subscription_id for subscriber in self._subscribers]

    def limit(self, concurrency: int) -> None:
        """For every subscriber, whatever was said before."""
        self._subscribers = [replace(one, concurrency=concurrency) for one in self._subscribers]

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        asyncio.run(run_until_signal([self]))

    async def serve(self, client: AsyncClient | None = None) -> None:
        """Until `stop()`; raises what cannot pass, such as a subscription that does not exist."""
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
        self._consumers = [Consumer(client, subscriber) for subscriber in self._subscribers]

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
    """All at once; the first that fails stops the others. A second signal does not wait for the handlers."""
    loop = asyncio.get_running_loop()
    signals = 0

    def stop(*, at_once: bool = False) -> None:
        for worker in workers:
            worker.stop(at_once=at_once)

    def signalled() -> None:
        nonlocal signals
        signals += 1
        stop(at_once=signals > 1)

    async def serve(worker: Worker) -> None:
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
