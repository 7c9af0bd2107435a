"""What the bus in memory adds for tests: time that is passed by hand, draining, waiting without a server."""

import asyncio
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from fastpubsub.client import Client, InvalidRequest, NotFound, Outgoing, Reject, Retry, TooManyRequests, Worker
from fastpubsub.testing import InMemoryBus
from fastpubsub.testing.fixtures import memory_bus

__all__ = ["memory_bus"]

SECONDS = 60.0


class Order(BaseModel):
    order_id: int


async def test_draining_runs_a_worker_until_nothing_is_left(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    memory_bus.subscription("shipping", "billed")
    worker = Worker()
    shipped = []

    @worker.subscriber("billing")
    async def bill(order: Order) -> None:
        async with memory_bus.async_client() as bus:
            await bus.publish("billed", order)

    @worker.subscriber("shipping")
    def ship(order: Order) -> None:
        shipped.append(order.order_id)

    with memory_bus.client() as bus:
        bus.publish("orders", *({"order_id": n} for n in range(150)))
        await memory_bus.drain(worker)
        assert bus.metrics("shipping").acked == bus.metrics("billing").acked == 150
    assert sorted(shipped) == list(range(150))
    assert memory_bus.published("billed")[0] == {"order_id": 0}


async def test_time_passes_by_hand(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders", max_delivery_attempts=3)
    worker = Worker()
    attempts = 0

    @worker.subscriber("billing")
    async def bill(order: Order) -> None:
        nonlocal attempts
        attempts += 1
        if order.order_id == 1:
            raise Retry(after=3600)
        raise Reject("no")

    with memory_bus.client() as bus:
        bus.publish("orders", {"order_id": 1})
        await memory_bus.drain(worker)
        await memory_bus.drain(worker)
        assert attempts == 1
        memory_bus.advance(3600)
        await memory_bus.drain(worker)
        assert attempts == 2
        bus.publish("orders", {"order_id": 2})
        await memory_bus.drain(worker)
        assert [letter.reason for letter in bus.list_dead_letters("billing")] == ["no"]


async def test_draining_raises_what_cannot_pass(memory_bus: InMemoryBus) -> None:
    worker = Worker()

    @worker.subscriber("nowhere")
    async def handle(order: Order) -> None: ...

    with pytest.raises(NotFound, match="nowhere"):
        await memory_bus.drain(worker)


async def test_a_pull_waits_for_what_is_published(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    async with asyncio.timeout(SECONDS), memory_bus.async_client() as bus:
        assert await bus.pull("billing") == []
        waiting = asyncio.create_task(bus.pull("billing", wait_seconds=20))
        await asyncio.sleep(0)
        await bus.publish("orders", {"order_id": 1})
        (message,) = await waiting
        await bus.nack("billing", message, delay_seconds=600)
        waiting = asyncio.create_task(bus.pull("billing", wait_seconds=20))
        await asyncio.sleep(0)
        memory_bus.advance(600)
        assert len(await waiting) == 1


def test_a_pull_in_a_thread_waits_too(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    got: list[Any] = []
    with memory_bus.client() as bus:
        thread = threading.Thread(target=lambda: got.extend(bus.pull("billing", wait_seconds=20)))
        thread.start()
        bus.publish("orders", {"order_id": 1})
        thread.join(SECONDS)
    assert len(got) == 1


async def test_messages_one_after_the_other(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    async with asyncio.timeout(SECONDS), memory_bus.async_client() as bus:
        await bus.publish("orders", {"order_id": 1})
        async for delivery in bus.messages("billing"):
            async with delivery:
                assert delivery.payload == {"order_id": 1}
            break
        assert (await bus.metrics("billing")).acked == 1


def test_clients_with_credentials_and_publishers(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    with Client("http://memory", "id", "secret", transport=memory_bus.transport) as bus:
        with bus.publisher() as publisher:
            futures = [publisher.publish("orders", {"order_id": n}) for n in range(10)]
        assert len({future.result() for future in futures}) == 10
        assert bus.metrics("billing").available == 10


def test_every_bus_is_its_own(memory_bus: InMemoryBus) -> None:
    memory_bus.subscription("billing", "orders")
    with InMemoryBus().client() as other, pytest.raises(NotFound, match="orders"):
        other.get_topic("orders")


def test_what_it_leaves_out_says_so(memory_bus: InMemoryBus) -> None:
    with memory_bus.client() as bus, pytest.raises(NotFound, match="the bus in memory"):
        bus.create_client("name", "*")


def test_a_subscription_that_nobody_pulls_expires(memory_bus: InMemoryBus) -> None:
    with memory_bus.client() as bus:
        bus.create_topic("t")
        bus.create_subscription("used", "t", expire_after_seconds=600)
        bus.create_subscription("held", "t", expire_after_seconds=600, ack_deadline_seconds=3600)
        bus.create_subscription("unused", "t", expire_after_seconds=600)
        bus.create_subscription("paused", "t", expire_after_seconds=600)
        bus.pause("paused")
        bus.publish("t", {"n": 1})
        assert bus.pull("held")
        for _ in range(3):
            memory_bus.advance(500)
            bus.pull("used", batch_size=1)
        assert [one.id for one in bus.list_subscriptions()] == ["held", "paused", "used"]
        assert bus.get_subscription("paused").expires_at is None
        bus.resume("paused")
        memory_bus.advance(719)
        assert bus.get_subscription("paused").expires_at is not None
        memory_bus.advance(1)
        assert [one.id for one in bus.list_subscriptions()] == ["held"]


async def test_a_full_subscription_refuses(memory_bus: InMemoryBus) -> None:
    """A client of the bus in memory sends nothing again; those of a server do."""
    async with memory_bus.async_client() as bus:
        await bus.create_topic("t")
        await bus.create_subscription("s", "t", max_backlog=2)
        await bus.publish("t", {"n": 1}, idempotency_key="a")
        with pytest.raises(TooManyRequests, match='"s" is full: it has room for 1'):
            await bus.publish("t", {"n": 2}, {"n": 3})
        with pytest.raises(InvalidRequest, match="publish fewer"):
            await bus.publish("t", {"n": 2}, {"n": 3}, {"n": 4})
        await bus.publish("t", {"n": 2}, Outgoing({"n": 3}, delay_seconds=5))
        with pytest.raises(TooManyRequests, match="room for 0"):
            await bus.publish("t", {"n": 4})
        await bus.publish("t", {"n": 1}, idempotency_key="a")
        memory_bus.advance(5)
        assert [message.payload["n"] for message in await bus.pull("s")] == [1, 2, 3]
        await bus.publish("t", {"n": 4})


async def test_a_pull_that_waits_keeps_its_subscription(memory_bus: InMemoryBus) -> None:
    async with asyncio.timeout(SECONDS), memory_bus.async_client() as bus:
        await bus.create_topic("t")
        await bus.create_subscription("s", "t", expire_after_seconds=60)
        waiting = asyncio.create_task(bus.pull("s", wait_seconds=20))
        while not await bus.list_consumers("s"):  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0)
        memory_bus.advance(3600)
        await bus.publish("t", {"n": 1})
        assert len(await waiting) == 1


async def test_a_drain_ends_at_a_rate_limit(memory_bus: InMemoryBus) -> None:
    worker = Worker()
    got: list[int] = []

    @worker.subscriber("s", topic="t", rate_limit=2)
    async def handle(payload: dict[str, int]) -> None:
        got.append(payload["n"])

    with memory_bus.client() as bus:
        bus.create_topic("t")
        bus.create_subscription("s", "t")
        bus.publish("t", *({"n": n} for n in range(5)))
        await memory_bus.drain(worker)
        assert got == [0, 1]
        memory_bus.advance(0.5)
        await memory_bus.drain(worker)
        assert got == [0, 1, 2]
