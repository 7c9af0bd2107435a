"""Workers against the application in this process; the trouble that servers make is in test_worker_process.py."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from fastpubsub.client import (
    AsyncClient,
    Delivery,
    Message,
    NotFound,
    Reject,
    Retry,
    Worker,
    leases,
    pulling,
    settling,
    threads,
)
from fastpubsub.client.deliveries import ACK, Outcome
from fastpubsub.client.settling import Settler
from tests.client.conftest import QUICK

pytestmark = pytest.mark.shared_application

SECONDS = 60.0


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
    assert all(name.startswith(threads.THREADS) for name in seen)


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
        "nacked on delivery attempt 5 of 5: RuntimeError: a defect",
        "the payload does not match Order: order_id: Field required",
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


@pytest.mark.usefixtures("orders")
async def test_what_handlers_do_touches_no_other_message(bus: AsyncClient) -> None:
    """Whatever they raise, write into reasons and return; more often than there may be messages that wait to settle."""
    await bus.update_subscription("billing", max_delivery_attempts=2)
    weird: list[Callable[[], BaseException]] = [
        lambda: Reject("x\udcff.csv"),
        lambda: Reject("a\0b"),
        lambda: Reject(ValueError("no")),
        lambda: Reject(None),
        lambda: Retry(after=float("nan")),
        lambda: Retry(after=timedelta(0)),
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        GeneratorExit,
        lambda: BaseExceptionGroup("several", [SystemExit()]),
        StopIteration,
    ]
    seen: Counter[int] = Counter()

    async def handle(payload: dict[str, Any]) -> None:
        seen[payload["n"]] += 1
        if payload["n"] % 12:
            error = weird[payload["n"] // 12 % 12]()
            raise error

    await bus.publish("orders", *({"n": n} for n in range(1000)))
    await bus.publish("orders", *({"n": n} for n in range(1000, 1200)))

    async def done() -> bool:
        return await counts(bus) == {"available": 0, "delivered": 0, "acked": 100, "dlq": 1100}

    async with running(worker_of(handle, concurrency=100), bus):
        await until(done)
    assert {seen[n] for n in range(0, 1200, 12)} == {1}
    assert {seen[n] for n in range(1200) if n % 12} == {1, 2}
    reasons = {letter.reason for letter in await bus.list_dead_letters("billing", limit=100)}
    last = "nacked on delivery attempt 2 of 2"
    rejected = {reason for reason in reasons if not reason.startswith(last)}
    assert rejected == {"x\\udcff.csv", "a\\x00b", "ValueError: no", "rejected"}
    assert {f"{last}: KeyboardInterrupt", f"{last}: CancelledError"} < reasons


@pytest.mark.usefixtures("orders")
async def test_plain_functions_that_raise_what_no_future_takes(bus: AsyncClient) -> None:
    await bus.update_subscription("billing", max_delivery_attempts=1)

    def handle(order: Order) -> None:
        if order.order_id < 20:
            raise (StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError)[order.order_id % 4]

    await bus.publish("orders", *({"order_id": n} for n in range(21)))

    async def done() -> bool:
        return await counts(bus) == {"available": 0, "delivered": 0, "acked": 1, "dlq": 20}

    async with running(worker_of(handle, concurrency=1), bus):
        await until(done)


@pytest.mark.usefixtures("orders")
async def test_what_cannot_be_settled_keeps_no_neighbor_from_it(
    transport: httpx.ASGITransport, bus: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that takes fewer ids at once, and a transport with a defect."""
    seen: Counter[str] = Counter()

    class Few(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/acks") and request.content.count(b",") >= 3:
                seen["refused"] += 1
                return httpx.Response(413, request=request)
            if request.url.path.endswith("/rejects"):
                raise RuntimeError("a defect")
            return await transport.handle_async_request(request)

    await bus.publish("orders", *({"order_id": n} for n in range(20)))
    async with AsyncClient(transport=Few(), policy=QUICK) as few:
        settler = Settler(few, "billing")
        messages = await bus.pull("billing", batch_size=20)
        for message in messages[:19]:
            settler.add(Delivery(**message.model_dump()), ACK)
        settler.add(Delivery(**messages[19].model_dump()), Outcome("reject"))
        await settler.flush()
    assert seen["refused"]
    assert settler.pending == 0
    assert await counts(bus) == {"available": 0, "delivered": 1, "acked": 19, "dlq": 0}
    assert "1 messages could not be settled and come again" in caplog.text


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
        return busy == 3

    async def done() -> bool:
        return (await counts(bus))["acked"] == 20

    async with (
        AsyncClient(transport=spy, policy=QUICK) as spied,
        running(worker_of(handle, concurrency=3, consumer_id="me"), spied),
    ):
        await until(full)
        (pull,) = (one.url.params for one in spy.requests)
        assert pull["batch_size"] == "3"
        assert "wait_seconds" not in pull
        assert pull["consumer_id"] == "me"
        go_on.set()
        await until(done)
    assert most == 3


def paths(spy: Spy) -> Counter[str]:
    return Counter(one.url.path.rpartition("/")[2] for one in spy.requests)


@pytest.mark.usefixtures("orders")
async def test_what_is_done_is_settled_with_the_next_pull(
    transport: httpx.ASGITransport, bus: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "GATHER_SECONDS", 0.5)  # in which a busy machine pulls again

    async def handle(order: Order) -> None:
        if order.order_id % 10 == 1:
            raise Reject("one of ten")

    await bus.publish("orders", *({"order_id": n} for n in range(500)))
    spy = Spy(transport)

    async def done() -> bool:
        return await counts(bus) == {"available": 0, "delivered": 0, "acked": 450, "dlq": 50}

    async with AsyncClient(transport=spy, policy=QUICK) as spied, running(worker_of(handle), spied):
        await until(done)
    seen = paths(spy)
    assert seen["pulls"] >= 5
    assert seen["messages"] + seen["acks"] + seen["rejects"] < seen["pulls"]
    sizes = [int(one.url.params["batch_size"]) for one in spy.requests if "batch_size" in one.url.params]
    assert sizes[0] == 10
    assert max(sizes) == 100


@pytest.mark.usefixtures("orders")
async def test_an_outcome_does_not_wait_for_a_pull_that_waits(transport: httpx.ASGITransport, bus: AsyncClient) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    held: list[httpx.Request] = []

    class Holds(Spy):
        """Answers no pull that waits."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if "wait_seconds" in request.url.params:
                held.append(request)
                await asyncio.Event().wait()
            return await super().handle_async_request(request)

    async def handle(order: Order) -> None:
        begun.set()
        await go_on.wait()

    async def waits() -> bool:
        return bool(held)

    async def done() -> bool:
        return (await counts(bus))["acked"] == 1

    await bus.publish("orders", {"order_id": 1})
    holds = Holds(transport)
    async with AsyncClient(transport=holds, policy=QUICK) as client:
        task = asyncio.create_task(worker_of(handle).serve(client))
        async with asyncio.timeout(SECONDS):
            await begun.wait()
            await until(waits)
            go_on.set()
            await until(done)
        assert (len(held), paths(holds)["acks"]) == (1, 1)
        task.cancel()
        await asyncio.wait([task], timeout=SECONDS)


@pytest.mark.usefixtures("orders")
async def test_what_waits_for_too_long_is_given_back(transport: httpx.ASGITransport, bus: AsyncClient) -> None:
    """After quick handlers, slow ones: others get what waits behind them, without an attempt used."""
    stuck = asyncio.Event()

    async def handle(order: Order) -> None:
        if order.order_id >= 30:
            await stuck.wait()

    spy = Spy(transport)
    await bus.publish("orders", *({"order_id": n} for n in range(100)))

    async def given_back() -> bool:
        return (await counts(bus))["delivered"] == 3 and bool(paths(spy)["nacks"])

    async with (
        AsyncClient(transport=spy, policy=QUICK) as spied,
        running(worker_of(handle, concurrency=3, prefetch_seconds=0.1), spied),
    ):
        await until(given_back)
        others = await bus.pull("billing", batch_size=100)
        assert {message.delivery_attempts for message in others} == {1}
        assert len(others) == (await counts(bus))["delivered"] - 3
        await bus.ack("billing", others)
        stuck.set()
    assert (await counts(bus))["acked"] == 100


@pytest.mark.usefixtures("orders")
async def test_nothing_waits_without_time_for_it(transport: httpx.ASGITransport, bus: AsyncClient) -> None:
    async def handle(order: Order) -> None: ...

    await bus.publish("orders", *({"order_id": n} for n in range(30)))
    spy = Spy(transport)

    async def done() -> bool:
        return (await counts(bus))["acked"] == 30

    worker = worker_of(handle, concurrency=3, prefetch_seconds=0)
    async with AsyncClient(transport=spy, policy=QUICK) as spied, running(worker, spied):
        await until(done)
    assert {one.url.params["batch_size"] for one in spy.requests if "batch_size" in one.url.params} <= {"1", "2", "3"}


@pytest.mark.usefixtures("orders")
async def test_the_next_messages_are_asked_for_before_the_last_are_handled(
    transport: httpx.ASGITransport, bus: AsyncClient
) -> None:
    """From the second answer on: until a handler has ended, nobody knows how many to pull ahead."""
    seen: list[str] = []

    class Notes(Spy):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append("asked")
            response = await super().handle_async_request(request)
            seen.append("answered")
            return response

    async def handle(order: Order) -> None:
        seen.append("handled")

    async def done() -> bool:
        return (await counts(bus))["acked"] == 300

    await bus.publish("orders", *({"order_id": n} for n in range(300)))
    spy = Notes(transport)
    async with AsyncClient(transport=spy, policy=QUICK) as spied, running(worker_of(handle, concurrency=10), spied):
        await until(done)
    handled = [place for place, (before, now) in enumerate(pairwise(seen), 1) if now == "handled" != before]
    assert seen[handled[1] - 1] == "asked"


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("trouble", [0, 422, 500, 503])
async def test_what_no_pull_could_settle_is_settled_apart(
    transport: httpx.ASGITransport, bus: AsyncClient, trouble: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0: the answer is lost after the server has done it."""
    monkeypatch.setattr(pulling, "AGAIN", QUICK)

    class Refuses(Spy):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not request.url.path.endswith("/pulls"):
                return await super().handle_async_request(request)
            if trouble:
                return httpx.Response(trouble, request=request)
            await super().handle_async_request(request)
            raise httpx.ReadError("lost", request=request)

    async def handle(order: Order) -> None: ...

    async def done() -> bool:
        found = await counts(bus)
        return found["acked"] == 5 and (not trouble or found["delivered"] == 0)

    await bus.publish("orders", *({"order_id": n} for n in range(5)))
    spy = Refuses(transport)
    async with AsyncClient(transport=spy, policy=QUICK) as spied, running(worker_of(handle, concurrency=5), spied):
        await until(done)
    assert paths(spy)["acks"]


@pytest.mark.usefixtures("orders")
async def test_what_waits_is_given_back_at_a_stop(bus: AsyncClient) -> None:
    """With a single attempt: what no handler has seen is no dead letter."""
    await bus.update_subscription("billing", max_delivery_attempts=1)
    await bus.publish("orders", *({"order_id": n} for n in range(200)))
    stuck, go_on = asyncio.Event(), asyncio.Event()

    async def handle(order: Order) -> None:
        if order.order_id >= 20:
            stuck.set()
            await go_on.wait()

    async with running(worker_of(handle, concurrency=2, prefetch_seconds=60), bus):
        await stuck.wait()

        async def waits() -> bool:
            return (await counts(bus))["delivered"] > 2

        await until(waits)
        go_on.set()
    found = await counts(bus)
    assert (found["delivered"], found["dlq"], found["acked"] + found["available"]) == (0, 0, 200)


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
async def test_the_first_contact_is_said_once(
    transport: httpx.ASGITransport,
    bus: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not for each subscription, and not again after the server was away; without the password of its address."""
    monkeypatch.setattr(pulling, "AGAIN", QUICK)
    await bus.create_subscription("shipping", "orders")
    fails = Fails(transport)
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def handle(order: Order) -> None:
        seen.put_nowait(order.order_id)

    worker = worker_of(handle)
    worker.subscriber("shipping")(handle)
    url = "http://someone:password@bus.example:8080"
    with caplog.at_level(logging.INFO, "fastpubsub.client"):
        async with AsyncClient(url, transport=fails, policy=QUICK) as failing, running(worker, failing):
            for n in (1, 2, 3):
                await bus.publish("orders", {"order_id": n})
                assert [await seen.get(), await seen.get()] == [n, n]
                fails.failed.clear()
                fails.trouble = 503
                await bus.publish("orders", {"order_id": 0})  # which ends the pulls that wait
                await fails.failed.wait()
                fails.trouble = None
                assert [await seen.get(), await seen.get()] == [0, 0]
    said = [text for text in caplog.messages if "has reached its server" in text]
    assert said == ["a worker has reached its server: server=bus.example:8080 subscriptions=2"]
    assert "password" not in caplog.text


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
    assert not [text for text in texts if "no longer held" in text]


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


async def test_a_pause_is_told_once(bus: AsyncClient, orders: None, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    handled = asyncio.Event()
    worker.subscriber("billing")(lambda order: handled.set())
    await bus.pause("billing")
    await bus.publish("orders", {"order_id": 1})
    with caplog.at_level(logging.INFO, "fastpubsub.client"):
        async with running(worker, bus):
            told = "the subscription is paused, and hands out nothing until it is resumed: subscription_id=billing"
            await until(lambda: asyncio.sleep(0, told in caplog.messages))
            assert not handled.is_set()
            await bus.resume("billing")
            await handled.wait()
    assert caplog.messages.count(told) == 1
    assert "the subscription is no longer paused: subscription_id=billing" in caplog.messages
