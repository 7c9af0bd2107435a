"""Fifty workers while the server and its PostgreSQL are killed: nobody restarts them, and nothing is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fastpubsub.client import AsyncClient
from tests.faults.rig import Rig, Setup
from tests.faults.stage import opened
from tests.pages import Background, Shell

WORKERS = 50
SECONDS = 60.0
MODULE = f"""
from fastpubsub.client import Policy, Worker, pulling

pulling.AGAIN = Policy(backoff=0.1, max_backoff=0.5)


async def bill(order: dict) -> None:
    print(f"billed {{order['n']}}\\n", end="", flush=True)


for number in range({WORKERS}):
    globals()[f"w{{number}}"] = worker = Worker(concurrency=2)
    worker.subscriber("billing")(bill)
"""


class Orders:
    """Published one after the other, whatever happens: those of which the server said that it has them."""

    def __init__(self, bus: AsyncClient) -> None:
        self.bus = bus
        self.stored = 0

    async def publish_on(self) -> None:
        while True:
            await self.bus.publish("orders", {"n": self.stored})
            self.stored += 1
            await asyncio.sleep(0.005)

    async def begin(self) -> None:
        await self.bus.create_topic("orders")
        await self.bus.create_subscription(
            "billing",
            "orders",
            ack_deadline_seconds=2,
            max_delivery_attempts=100,
            backoff_min_seconds=0,
            backoff_max_seconds=0,
        )

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.publish_on())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def billed(workers: Background) -> set[int]:
    lines = workers.output().splitlines()
    return {int(line.split()[1]) for line in lines if line.startswith("billed ")}


async def until(workers: Background, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            assert workers.process.poll() is None, workers.output()
            await asyncio.sleep(0.05)


async def goes_on(workers: Background, orders: Orders) -> None:
    """Orders that are published from now on are billed."""
    last = orders.stored + 20
    await until(workers, lambda: set(range(last - 10, last)) <= billed(workers))


async def kill_server(rig: Rig, workers: Background) -> None:
    (killed,) = rig.servers
    killed.kill()
    await until(workers, lambda: workers.output().count("no messages can be pulled") >= WORKERS)
    rig.servers = [rig.start_server(int(killed.base_url.rpartition(":")[2]))]


async def kill_postgres(rig: Rig) -> None:
    assert rig.postgres.pid is not None
    os.kill(rig.postgres.pid, signal.SIGKILL)
    await asyncio.to_thread(rig.postgres.stop)
    await rig.start_postgres()


@pytest.mark.long
async def test_fifty_workers_outlive_the_server_and_its_database(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(MODULE)
    async with opened(Setup(workers=1, load=False), seed=1) as rig, AsyncClient(rig.server.base_url) as bus:
        orders = Orders(bus)
        await orders.begin()
        names = " ".join(f"work:w{number}" for number in range(WORKERS))
        shell = Shell(tmp_path, {"url": rig.server.base_url})
        with shell.start(f"exec fastpubsub worker {names}") as workers:
            async with orders.coming():
                await goes_on(workers, orders)
                await kill_server(rig, workers)
                await goes_on(workers, orders)
                await kill_postgres(rig)
                await goes_on(workers, orders)
            await finish(bus, orders, workers)


async def finish(bus: AsyncClient, orders: Orders, workers: Background) -> None:
    """All that the server said to have is billed and acknowledged, by workers of which none was lost."""
    await until(workers, lambda: set(range(orders.stored)) <= billed(workers))
    lost, found = "no messages can be pulled", "messages can be pulled again"
    await until(workers, lambda: workers.output().count(lost) == workers.output().count(found) >= WORKERS)
    async with asyncio.timeout(SECONDS):
        while (metrics := await bus.metrics("billing")).available + metrics.delivered:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.05)
    assert (metrics.dlq, metrics.acked >= orders.stored) == (0, True)
    workers.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(workers.process.wait, SECONDS) == 0
    assert "Traceback" not in workers.output()
