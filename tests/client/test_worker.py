"""Workers against the application in this process; the trouble that servers make is in test_worker_process.py."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from fastpubsub.client import AsyncClient, Delivery, Message, NotFound, Reject, Retry, Worker, consumer, leases, pulling
from tests.client.conftest import QUICK

SECONDS = 30.0


class Order(BaseModel):
    order_id: int


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not wait is asked again soon."""
    monkeypatch.setattr(pulling, "IDLE_SECONDS", 0.02)


@pytest.fixture
async def orders(bus: AsyncClient) -> None:
    await bus.create_topic("orders")
    await bus.create_subscription("billing", "orders", backoff_min_seconds=0, backoff_max_seconds=0)


@asynccontextmanager
async def running(worker: Worker, bus: AsyncClient) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(worker.serve(bus))
    try:
        async with asyncio.timeout(SECONDS):
            yield task
            worker.stop()
            await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    while not await condition():  # noqa: ASYNC110 - it asks the server
        await asyncio.sleep(0.01)


async def counts(bus: AsyncClient) -> dict[str, int]:
    return (await bus.metrics("billing")).model_dump(include={"available", "delivered", "acked", "dlq"})


def worker_of(handle: Callable[..., Any], **options: Any) -> Worker:
    worker = Worker(**options)
    assert worker.subscriber("billing")(handle) is handle
    return worker


@pytest.mark.usefixtures("orders")
async def test_what_returns_is_acknowledged(bus: AsyncClient) -> None:
    seen: list[int] = []

    async def handle(order: Order) -> None:
        seen.append(order.order_id)

    await bus.publish("orders", *({"order_id": n} for n in range(250)))

    async def done() -> bool:
        return await counts(bus) == {"available": 0, "delivered": 0, "acked": 250, "dlq": 0}

    async with running(worker_of(handle), bus):
        await until(done)
    assert sorted(seen) == list(range(250))


@pytest.mark.usefixtures("orders")
async def test_plain_functions(bus: AsyncClient) -> None:
    seen: list[str] = []

    def handle(order: Order, message: Message) -> None:
        seen.append(threading.current_thread().name)

    await bus.publish("orders", *({"order_id": n} for n in range(20)))

    async def done() -> bool:
        return (await counts(bus))["acked"] == 20

    async with running(worker_of(handle), bus):
        await until(done)
    assert all(name.startswith(consumer.THREADS) for name in seen)


@pytest.mark.usefixtures("orders")
async def test_what_handlers_say(bus: AsyncClient) -> None:
    attempts: dict[int, list[int]] = {}

    async def handle(order: Order, message: Message) -> None:
        attempts.setdefault(order.order_id, []).append(message.delivery_attempts)
        if order.order_id == 1 and message.delivery_attempts < 3:
            raise Retry(after=0)
        if order.order_id == 2:
            raise Reject("nobody wants it")
        if order.order_id == 3:
            raise RuntimeError("a defect")

    await bus.publish("orders", *({"order_id": n} for n in range(4)), {"other": 1})

    async def done() -> bool:
        return await counts(bus) == {"available": 0, "delivered": 0, "acked": 2, "dlq": 3}

    async with running(worker_of(handle), bus):
        await until(done)
    assert attempts == {0: [1], 1: [1, 2, 3], 2: [1], 3: [1, 2, 3, 4, 5]}
    reasons = [letter.reason for letter in await bus.list_dead_letters("billing")]
    assert reasons == [
        "nobody wants it",
        "nacked on delivery attempt 5 of 5",
        "the payload does not fit Order: order_id: Field required",
    ]


@pytest.mark.usefixtures("orders")
async def test_handlers_can_settle_by_themselves(bus: AsyncClient) -> None:
    async def handle(delivery: Delivery) -> None:
        await delivery.reject("by itself")
        await asyncio.sleep(0)

    await bus.publish("orders", {"order_id": 1})

    async def done() -> bool:
        return (await counts(bus))["dlq"] == 1

    async with running(worker_of(handle), bus):
        await until(done)
    assert [letter.reason for letter in await bus.list_dead_letters("billing")] == ["by itself"]


async def told(delivery: Delivery) -> bool:
    return delivery.lease_lost


class Spy(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self.inner.handle_async_request(request)


@pytest.mark.usefixtures("orders")
async def test_no_more_is_pulled_than_can_be_worked_on(transport: httpx.ASGITransport, bus: AsyncClient) -> None:
    busy = 0
    most = 0
    go_on = asyncio.Event()

    async def handle(order: Order) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await go_on.wait()
        busy -= 1

    await bus.publish("orders", *({"order_id": n} for n in range(20)))
    spy = Spy(transport)

    async def full() -> bool:
        return (await counts(bus))["delivered"] == 3

    async def done() -> bool:
        return (await counts(bus))["acked"] == 20

    async with (
        AsyncClient(transport=spy, policy=QUICK) as spied,
        running(worker_of(handle, concurrency=3, consumer_id="me"), spied),
    ):
        await until(full)
        pulls = [one.url.params for one in spy.requests if one.url.path.endswith("/messages")]
        assert [pull["batch_size"] for pull in pulls] == ["3"]
        assert pulls[0]["wait_seconds"] == "20"
        assert pulls[0]["consumer_id"] == "me"
        go_on.set()
        await until(done)
    assert most == 3
    acks = [one for one in spy.requests if one.url.path.endswith("/acks")]
    assert 1 <= len(acks) <= 20


@pytest.mark.usefixtures("orders")
async def test_stopping_lets_handlers_finish(bus: AsyncClient) -> None:
    started = asyncio.Event()
    finish = asyncio.Event()

    async def handle(order: Order) -> None:
        started.set()
        await finish.wait()

    await bus.publish("orders", {"order_id": 1}, {"order_id": 2})
    worker = worker_of(handle, concurrency=1)
    async with running(worker, bus) as task:
        await started.wait()
        worker.stop()
        await asyncio.sleep(0)
        assert not task.done()
        finish.set()
        await task
    assert await counts(bus) == {"available": 1, "delivered": 0, "acked": 1, "dlq": 0}


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_does_not_finish_in_time_is_given_back(bus: AsyncClient, at_once: bool) -> None:
    started = asyncio.Event()
    cancelled = False

    async def handle(order: Order) -> None:
        nonlocal cancelled
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled = True

    await bus.update_subscription("billing", backoff_max_seconds=600, backoff_min_seconds=600)
    await bus.publish("orders", {"order_id": 1})
    worker = worker_of(handle, grace_seconds=600 if at_once else 0.01)
    async with running(worker, bus) as task:
        await started.wait()
        worker.stop(at_once=at_once)
        await task
    assert cancelled
    (again,) = await bus.pull("billing")
    assert again.delivery_attempts == 2


@pytest.mark.usefixtures("orders")
async def test_a_cancelled_worker_gives_back_too(bus: AsyncClient) -> None:
    started = asyncio.Event()

    async def handle(order: Order) -> None:
        started.set()
        await asyncio.Event().wait()

    await bus.publish("orders", {"order_id": 1})
    async with asyncio.timeout(SECONDS):
        task = asyncio.create_task(worker_of(handle, grace_seconds=0.01).serve(bus))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(await bus.pull("billing")) == 1


@pytest.mark.usefixtures("orders")
async def test_a_subscription_that_does_not_exist_stops_the_worker(bus: AsyncClient) -> None:
    worker = Worker()
    seen = asyncio.Event()

    @worker.subscriber("billing")
    async def handle(order: Order) -> None:
        seen.set()

    @worker.subscriber("nowhere")
    async def other(order: Order) -> None: ...

    with pytest.raises(NotFound, match="nowhere"):
        async with asyncio.timeout(SECONDS):
            await worker.serve(bus)


class Fails(httpx.AsyncBaseTransport):
    """Answers 503, or not at all, as long as it says so."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.trouble: int | None = None
        self.failed = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.trouble == 0:
            self.failed.set()
            raise httpx.ConnectError("away", request=request)
        if self.trouble is not None:
            self.failed.set()
            return httpx.Response(self.trouble, request=request)
        return await self.inner.handle_async_request(request)


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("trouble", [0, 500, 502, 503, 429])
async def test_trouble_passes(
    transport: httpx.ASGITransport,
    bus: AsyncClient,
    trouble: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    fails = Fails(transport)
    fails.trouble = trouble
    seen = asyncio.Event()

    async def handle(order: Order) -> None:
        seen.set()

    await bus.publish("orders", {"order_id": 1})
    with caplog.at_level(logging.INFO, "fastpubsub.client"):
        async with AsyncClient(transport=fails, policy=QUICK) as failing, running(worker_of(handle), failing):
            for _ in range(3):
                fails.failed.clear()
                await fails.failed.wait()
            fails.trouble = None
            await seen.wait()
    texts = [record.getMessage() for record in caplog.records]
    assert sum("no messages can be pulled" in text for text in texts) == 1
    assert sum("can be pulled again" in text for text in texts) == 1


@pytest.mark.usefixtures("orders")
async def test_leases_are_extended_while_a_handler_runs(
    transport: httpx.ASGITransport, bus: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(leases, "EARLIEST_SECONDS", 0.1)
    await bus.update_subscription("billing", ack_deadline_seconds=300)
    await bus.publish("orders", {"order_id": 1}, {"order_id": 2})
    spy = Spy(transport)
    finish = asyncio.Event()

    async def handle(order: Order) -> None:
        await finish.wait()

    async def extended() -> bool:
        return any(one.url.path.endswith("/leases") for one in spy.requests)

    async with AsyncClient(transport=spy, policy=QUICK) as spied, running(worker_of(handle), spied):
        await until(extended)
        finish.set()
    (request,) = [one for one in spy.requests if one.url.path.endswith("/leases")]
    body = httpx.Response(200, content=request.content).json()
    assert len(body["ids"]) == 2
    assert 290 <= body["extend_seconds"] <= 310


@pytest.mark.usefixtures("orders")
async def test_a_lost_lease_is_told(
    bus: AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(leases, "EARLIEST_SECONDS", 0.1)
    lost = asyncio.Event()
    handled = 0

    async def handle(delivery: Delivery) -> None:
        nonlocal handled
        handled += 1
        if handled == 1:
            await bus.nack("billing", str(delivery.id))
            await until(lambda: told(delivery))
            lost.set()

    await bus.publish("orders", {"order_id": 1})

    async def done() -> bool:
        return (await counts(bus))["acked"] == 1

    async with running(worker_of(handle), bus):
        await lost.wait()
        await until(done)
    assert handled == 2
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in texts if "a lease was lost" in text]
    assert not [text for text in texts if "not held any more" in text]


@pytest.mark.usefixtures("orders")
class TestIteration:
    async def test_a_message_that_was_worked_through_is_acknowledged(self, bus: AsyncClient) -> None:
        await bus.publish("orders", {"order_id": 1}, {"order_id": 2}, {"order_id": 3})
        seen = []
        async with asyncio.timeout(SECONDS):
            async for delivery in bus.messages("billing"):
                async with delivery:
                    seen.append(delivery.payload["order_id"])
                if len(seen) == 2:
                    break
        assert seen == [1, 2]
        await until_given_back(bus, acked=2)

    async def test_saying_what_becomes_of_it(self, bus: AsyncClient) -> None:
        await bus.publish("orders", {"order_id": 1}, {"order_id": 2}, {"order_id": 3})
        async with asyncio.timeout(SECONDS):
            messages = bus.messages("billing")
            async with await anext(messages):
                raise Reject("no")
            async with await anext(messages) as second:
                raise Retry(after=600)
            assert second.is_settled
            with pytest.raises(RuntimeError, match="a defect"):
                async with await anext(messages) as third:
                    raise RuntimeError("a defect")
            again = await anext(messages)
            assert (again.id, again.delivery_attempts) == (third.id, 2)
            await again.ack()
            await messages.aclose()
        assert await counts(bus) == {"available": 1, "delivered": 0, "acked": 1, "dlq": 1}

    async def test_waiting_messages_are_given_back(self, bus: AsyncClient) -> None:
        await bus.publish("orders", {"order_id": 1}, {"order_id": 2})
        messages = bus.messages("billing")
        async with asyncio.timeout(SECONDS), await anext(messages):
            pass
        await messages.aclose()
        await until_given_back(bus, acked=1)


async def until_given_back(bus: AsyncClient, acked: int) -> None:
    async def given_back() -> bool:
        return await counts(bus) == {"available": 1, "delivered": 0, "acked": acked, "dlq": 0}

    async with asyncio.timeout(SECONDS):
        await until(given_back)
