"""Stopping under load, at any moment: no message that nobody has looked at may be lost to an attempt."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from fastpubsub.client import AsyncClient, Worker
from tests.lasting import Last

SECONDS = 120.0
MESSAGES = 300
STOPS = 12


class Handled:
    def __init__(self, bus: AsyncClient) -> None:
        self.bus = bus
        self.times: Counter[int] = Counter()

    async def by_worker(self, stopped: asyncio.Event) -> None:
        worker = Worker(concurrency=20)

        @worker.subscriber("billing")
        async def handle(payload: dict[str, Any]) -> None:
            self.times[payload["n"]] += 1

        serving = asyncio.create_task(worker.serve(self.bus))
        await stopped.wait()
        worker.stop()
        await serving

    async def by_loop(self, stopped: asyncio.Event) -> None:
        looping = asyncio.create_task(self._loop())
        await stopped.wait()
        looping.cancel()
        with suppress(asyncio.CancelledError):
            await looping

    async def _loop(self) -> None:
        async for delivery in self.bus.messages("billing", prefetch=20):
            async with delivery:
                self.times[delivery.payload["n"]] += 1


@asynccontextmanager
async def publishing(bus: AsyncClient) -> AsyncIterator[asyncio.Task[None]]:
    async def publish() -> None:
        for start in range(0, MESSAGES, 3):
            await bus.publish("orders", *({"n": n} for n in range(start, start + 3)))

    task = asyncio.create_task(publish())
    yield task
    await task


@pytest.mark.parametrize("how", ["by_worker", "by_loop"])
async def test_nothing_dies_unseen(lasting_server: Last, how: str) -> None:
    """With two server processes: the one that is told that a consumer leaves need not be the one where it waits."""
    started = await asyncio.to_thread(lasting_server, api_num_workers=2, log_requests=False)
    chance = random.Random(7)
    async with AsyncClient(started.base_url) as bus, asyncio.timeout(SECONDS):
        await bus.create_topic("orders")
        await bus.create_subscription("billing", "orders", max_delivery_attempts=1, ack_deadline_seconds=600)
        handled = Handled(bus)
        run = getattr(handled, how)

        async def once(seconds: float) -> None:
            stopped = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, stopped.set)
            await run(stopped)

        async with publishing(bus) as published:
            for _ in range(STOPS):
                await once(chance.uniform(0, 0.1))
            await published
            stopped = asyncio.Event()
            running = asyncio.create_task(run(stopped))
            while (metrics := await bus.metrics("billing")).available + metrics.delivered:  # noqa: ASYNC110 - nobody tells it
                await asyncio.sleep(0.1)  # what was stranded would be with nobody for ten minutes
            stopped.set()
            await running
        dead = [letter.payload["n"] for letter in await bus.list_dead_letters("billing", limit=100)]
    assert [n for n in dead if not handled.times[n]] == []
    if how == "by_worker":
        assert dead == []
        assert handled.times == Counter(range(MESSAGES))


async def test_an_idle_worker_stops_at_once(lasting_server: Last) -> None:
    """Its pull waits for 20 seconds; it is not cut off, but answered."""
    started = await asyncio.to_thread(lasting_server, api_num_workers=2, log_requests=False)
    async with AsyncClient(started.base_url) as bus, asyncio.timeout(SECONDS):
        await bus.create_topic("orders")
        await bus.create_subscription("billing", "orders")
        handled = Handled(bus)
        loop = asyncio.get_running_loop()
        seconds = []
        for _ in range(5):
            stopped = asyncio.Event()
            running = asyncio.create_task(handled.by_worker(stopped))
            await asyncio.sleep(0.3)
            before = loop.time()
            stopped.set()
            await running
            seconds.append(loop.time() - before)
        assert min(seconds) < 10
