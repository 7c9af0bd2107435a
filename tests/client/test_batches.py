"""Functions that process several messages at once: on the bus in memory, and on a server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastpubsub.client import AsyncClient, Delivery, Depends, Message, Reject, Retry, Worker, leases
from fastpubsub.client.deliveries import hold_of
from fastpubsub.client.measuring import exposition
from fastpubsub.client.requests import publishing
from fastpubsub.integrations.opentelemetry import MessageFilter, instrument
from fastpubsub.integrations.sqlalchemy import done_table, once
from fastpubsub.testing import InMemoryBus
from tests.client.conftest import QUICK

Figures = tuple[int, int, int]
"""Waiting, done, dead."""


class Order(BaseModel):
    n: int


@pytest.fixture(params=["memory", "server"])
def place(request: pytest.FixtureRequest) -> Any:
    return InMemoryBus().transport if request.param == "memory" else request.getfixturevalue("transport")


@pytest.fixture
async def client(place: httpx.AsyncBaseTransport) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=place, policy=QUICK) as client:
        await client.create_topic("orders")
        await client.create_subscription("billing", "orders", max_delivery_attempts=2)
        yield client


async def figures(client: AsyncClient) -> Figures:
    metrics = await client.metrics("billing")
    return metrics.available, metrics.acked, metrics.dlq


async def process(client: AsyncClient, worker: Worker, expected: Figures) -> None:
    """Until each message was handled, nothing is held, and the figures are these."""
    serving = asyncio.create_task(worker.serve(client))
    try:
        async with asyncio.timeout(60):
            while not await is_done(client, worker, expected):  # noqa: ASYNC110 - of a server
                await asyncio.sleep(0.01)
    finally:
        worker.stop()
        await serving


async def is_done(client: AsyncClient, worker: Worker, expected: Figures) -> bool:
    handled = sum(one.outcomes.total() for one in worker.measured)
    is_held = (await client.metrics("billing")).delivered > 0
    return handled == sum(expected) and not is_held and await figures(client) == expected


async def test_one_call_for_many(client: AsyncClient) -> None:
    worker, calls = Worker(concurrency=1), []

    @worker.subscriber("billing", batch_size=50)
    async def bill(orders: list[Order], messages: list[Message]) -> None:
        calls.append([order.n for order in orders])
        assert [message.payload["n"] for message in messages] == calls[-1]

    await client.publish("orders", *({"n": n} for n in range(120)))
    await process(client, worker, (0, 120, 0))
    assert [n for call in calls for n in call] == list(range(120))
    assert [len(call) for call in calls] == [50, 50, 20]
    assert 'outcome="ack"} 120\n' in exposition(worker.measured)
    assert 'in_flight{subscription="billing"} 0\n' in exposition(worker.measured)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Retry(after=3600), (3, 0, 0)), (Reject("no"), (0, 0, 3)), (ValueError("no"), (3, 0, 0))],
)
async def test_an_exception_is_that_of_all(client: AsyncClient, error: Exception, expected: Figures) -> None:
    worker = Worker()
    await client.update_subscription("billing", backoff_min_seconds=3600, backoff_max_seconds=3600)

    @worker.subscriber("billing")
    async def bill(orders: list[Order]) -> None:
        raise error

    await client.publish("orders", {"n": 1}, {"n": 2}, {"n": 3})
    await process(client, worker, expected)


async def test_what_does_not_fit_is_rejected_alone(client: AsyncClient) -> None:
    worker, calls = Worker(), []

    @worker.subscriber("billing")
    def bill(orders: list[Order]) -> None:
        calls.append([order.n for order in orders])

    await client.publish("orders", {"n": 1}, {"n": "two"}, {"n": 3})
    await process(client, worker, (0, 2, 1))
    (dead,) = await client.list_dead_letters("billing")
    assert dead.payload == {"n": "two"}
    assert calls == [[1, 3]]
    await client.publish("orders", {"n": "four"})
    await process(client, worker, (0, 2, 2))
    assert calls == [[1, 3]]  # a batch of nothing is none


async def test_some_are_settled_apart(client: AsyncClient) -> None:
    worker = Worker()

    @worker.subscriber("billing")
    async def bill(deliveries: list[Delivery]) -> None:
        first, second, third, _ = deliveries
        await first.ack()
        await second.nack(3600, "later")
        await third.reject("never")
        raise Reject("the rest")

    await client.publish("orders", *({"n": n} for n in range(4)))
    await process(client, worker, (1, 1, 2))
    assert {one.payload["n"]: one.reason for one in await client.list_dead_letters("billing")} == {
        2: "never",
        3: "the rest",
    }


async def until_extended(deliveries: list[Delivery]) -> None:
    pulled = [hold_of(delivery).lease_ends_at for delivery in deliveries]
    while any(hold_of(one).lease_ends_at <= end for one, end in zip(deliveries, pulled, strict=True)):  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.01)


@pytest.fixture
def soon_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that a busy machine does not let end."""
    monkeypatch.setattr(leases, "FIRST_SECONDS", 1.0)


@pytest.mark.usefixtures("soon_extended")
async def test_all_leases_are_extended(client: AsyncClient) -> None:
    worker, ended = Worker(), asyncio.Event()

    @worker.subscriber("billing")
    async def bill(deliveries: list[Delivery]) -> None:
        await until_extended(deliveries)
        assert not any(delivery.lease_lost for delivery in deliveries)
        ended.set()

    await client.publish("orders", *({"n": n} for n in range(20)))
    await process(client, worker, (0, 20, 0))
    assert ended.is_set()


@pytest.mark.usefixtures("soon_extended")
async def test_more_leases_than_a_request_takes(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(concurrency=20)

    @worker.subscriber("billing")
    async def bill(deliveries: list[Delivery]) -> None:
        await until_extended(deliveries)

    for _ in range(15):
        await client.publish("orders", *({"n": n} for n in range(100)))
    await process(client, worker, (0, 1500, 0))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_what_stands_around_it(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    said: list[Any] = []
    await client.update_subscription("billing", backoff_min_seconds=3600, backoff_max_seconds=3600)
    caplog.set_level(logging.INFO, "fastpubsub.client")

    @worker.middleware
    async def outer(work: Message | list[Message], call_next: Callable[[], Awaitable[Any]]) -> Any:
        said.append(len(work) if isinstance(work, list) else "one")
        return await call_next()

    async def numbers(messages: list[Message]) -> AsyncIterator[list[int]]:
        yield [message.payload["n"] for message in messages]
        said.append("closed")

    @worker.subscriber("billing", timeout_seconds=0.1)
    async def bill(orders: list[Order], found: Annotated[list[int], Depends(numbers)]) -> None:
        said.append(found)
        await asyncio.sleep(60)

    await client.publish("orders", {"n": 1}, {"n": 2})
    await process(client, worker, (2, 0, 0))
    assert said == [2, [1, 2]]
    assert (
        "took longer than 0.1 seconds, and was cancelled: subscription_id=billing messages=2 first_id=" in caplog.text
    )


async def test_expected_exceptions(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    @worker.subscriber("billing", reject_on=KeyError)
    async def bill(orders: list[dict[str, Any]]) -> None:
        raise KeyError("country")

    await client.publish("orders", {"n": 1}, {"n": 2})
    await process(client, worker, (0, 0, 2))
    assert not caplog.records or "Traceback" not in caplog.text


async def test_each_message_once(empty_database_url: str) -> None:
    """What was done before is left out of the batch, in which other messages are."""
    metadata = MetaData()
    done_table(metadata)
    plain, engine = create_engine(empty_database_url), create_async_engine(empty_database_url)
    metadata.create_all(plain)
    memory, worker = InMemoryBus(), Worker()
    calls: list[list[int]] = []
    memory.subscription("billing", "orders", backoff_min_seconds=0)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @worker.middleware
    async def die_after_the_commit(work: list[Delivery], call_next: Callable[[], Awaitable[Any]]) -> Any:
        await call_next()
        if len(calls) == 1:
            raise Retry(after=0)

    @worker.subscriber("billing", once=once(get_session))
    async def bill(
        orders: list[Order], messages: list[Message], session: Annotated[AsyncSession, Depends(get_session)]
    ) -> None:
        calls.append([order.n for order in orders])
        assert [message.payload["n"] for message in messages] == calls[-1]
        if len(calls) == 1:
            await memory_client.publish("orders", {"n": 3})

    async with memory.async_client() as memory_client:
        await memory_client.publish("orders", {"n": 1}, {"n": 2})
        await memory.drain(worker)
        assert (await memory_client.metrics("billing")).acked == 3
    assert calls == [[1, 2], [3]]
    with plain.connect() as connection:
        assert connection.execute(text("select count(*) from fastpubsub_done")).scalar_one() == 3
    plain.dispose()
    await engine.dispose()


def test_what_cannot_be_is_refused() -> None:
    def subscribe(function: Callable[..., Any], **options: Any) -> None:
        Worker().subscriber("billing", **options)(function)

    async def one(order: Order) -> None: ...
    async def several(orders: list[Order]) -> None: ...
    async def mixed(orders: list[Order], message: Message) -> None: ...
    async def apart(deliveries: list[Delivery]) -> None: ...

    with pytest.raises(TypeError, match=r"one: batch_size needs a function that takes a list, such as list\[Order\]"):
        subscribe(one, batch_size=10)
    with pytest.raises(TypeError, match="mixed takes a list of payloads with a list of messages, or one with one"):
        subscribe(mixed)
    with pytest.raises(TypeError, match="several: publish_to needs a function of one message"):
        subscribe(several, publish_to="receipts")
    with pytest.raises(TypeError, match=r"apart: once remembers every message .* take list\[Message\] instead"):
        subscribe(apart, once=once(test_what_cannot_be_is_refused))
    for size in (0, 101):
        with pytest.raises(ValueError, match="batch_size is a number of messages from 1 to 100"):
            subscribe(several, batch_size=size)


async def of_one(message: Message, call_next: Callable[[], Awaitable[Any]]) -> Any: ...


async def of_several(messages: list[Message], call_next: Callable[[], Awaitable[Any]]) -> Any: ...


@pytest.mark.parametrize("is_batch", [True, False])
async def test_middlewares_and_dependencies_take_what_the_function_takes(*, is_batch: bool) -> None:
    async def bill_several(orders: list[Order]) -> None: ...
    async def bill_one(order: Order) -> None: ...

    memory, worker = InMemoryBus(), Worker()
    memory.subscription("billing", "orders")
    worker.middleware(of_one if is_batch else of_several)
    worker.subscriber("billing")(bill_several if is_batch else bill_one)
    with pytest.raises(TypeError, match=r"takes (batches|one message), and the middleware of_.* Message \| list"):
        await memory.drain(worker)

    def take_one(message: Message) -> Message:
        return message

    async def depend(orders: list[Order], message: Annotated[Message, Depends(take_one)]) -> None: ...

    other = Worker()
    other.subscriber("billing")(depend)
    with pytest.raises(TypeError, match=r"nobody gives the dependency .*take_one its argument 'message'.*list\[Mess"):
        await memory.drain(other)


async def test_a_batch_is_a_span_with_links() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    memory, worker, records = InMemoryBus(), Worker(), []
    memory.subscription("billing", "orders")
    instrument(worker, tracer_provider=provider)

    @worker.subscriber("billing")
    async def bill(orders: list[Order]) -> None:
        record = logging.LogRecord("test", logging.INFO, __file__, 1, "billed", (), None)
        MessageFilter().filter(record)
        records.append(record.__dict__)

    try:
        async with memory.async_client() as client:
            with tracer.start_as_current_span("one") as one:
                await client.publish("orders", {"n": 1})
            with tracer.start_as_current_span("two") as two:
                await client.publish("orders", {"n": 2})
        await memory.drain(worker)
    finally:
        publishing.carry(None)
    (span,) = (span for span in exporter.get_finished_spans() if span.name == "process billing")
    assert [link.context.span_id for link in span.links] == [part.get_span_context().span_id for part in (one, two)]
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 2
    (record,) = records
    assert (record["subscription_id"], record["message_id"]) == ("billing", "")
