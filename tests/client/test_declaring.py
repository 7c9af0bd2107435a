"""Topics and subscriptions that subscribers declare: on a server, and in memory."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from fastpubsub.client import (
    AlreadyExists,
    AsyncClient,
    InvalidRequest,
    Message,
    NotFound,
    Outgoing,
    PermissionDenied,
    Retry,
    Router,
    Topic,
    Worker,
    requests,
)
from fastpubsub.client.narrowing import both
from fastpubsub.models.subscriptions import NewSubscription
from fastpubsub.testing import InMemoryBus
from fastpubsub.testing.store.judging import matches, read_filter
from tests.client.conftest import QUICK


class Order(BaseModel):
    country: str = "BR"


ORDERS = Topic("orders", Order, retention_seconds=600)


@pytest.fixture
async def memory_client() -> AsyncIterator[AsyncClient]:
    async with InMemoryBus().async_client() as client:
        yield client


@pytest.fixture(params=["bus", "memory_client"])
def client(request: pytest.FixtureRequest) -> AsyncClient:
    found: AsyncClient = request.getfixturevalue(request.param)
    return found


def worker_of(topic: str | Topic[Any] = ORDERS, **settings: Any) -> Worker:
    worker = Worker()

    @worker.subscriber("billing", topic=topic, **settings)
    async def bill(order: Order) -> None:
        del order

    return worker


NOT_OF_SUBSCRIBERS = {
    "id": "the first argument",
    "topic_id": "`topic`",
    "push": "what is pushed is not pulled, so no worker gets it",
}
SETTINGS: dict[str, Any] = {
    "filter": {"country": ["BR"]},
    "max_delivery_attempts": 3,
    "backoff_min_seconds": 4,
    "backoff_max_seconds": 40,
    "backoff_jitter": 0.5,
    "ack_deadline_seconds": 7,
    "max_in_flight": 20,
    "rate_limit": 2.5,
    "dead_letter_topic": "failed-orders",
    "expire_after_seconds": 3600,
    "on_expired": "dead_letter",
    "on_dead_letter": "hold",
    "max_backlog": 100,
    "on_full": "drop_oldest",
    "fair_by": "ordering_key",
    "ordered": True,
    "start_from": "earliest",
    "fork_of": "audit",
}


def test_every_setting_of_a_subscription_can_be_declared() -> None:
    assert NOT_OF_SUBSCRIBERS.keys() | SETTINGS.keys() == NewSubscription.model_fields.keys()
    for name, value in SETTINGS.items():
        (registration,) = worker_of(**{name: value}).registrations()
        assert registration.declaration is not None
        for make in (requests.create_subscription, requests.ensure_subscription):
            sent = make("billing", "orders", **registration.declaration.settings).content
            assert from_json(sent or b"")[name] == value


async def test_a_fork_is_declared(client: AsyncClient) -> None:
    await client.create_topic("orders", retention_seconds=600)
    await client.create_subscription("audit", "orders", max_delivery_attempts=9)
    await client.publish("orders", {"country": "BR"})
    for _ in range(2):
        await worker_of(fork_of="audit", ordered=True).declare(client)
    found = await client.get_subscription("billing")
    assert (found.max_delivery_attempts, found.ordered) == (9, True)
    assert (await client.metrics("billing")).available == 1


async def test_order_is_not_changed(client: AsyncClient) -> None:
    await client.create_topic("orders", retention_seconds=600)
    await client.create_subscription("billing", "orders")
    with pytest.raises(AlreadyExists, match="subscription billing exists, and ordered is false, not true"):
        await worker_of(ordered=True).declare(client)


@pytest.mark.parametrize("is_batch", [False, True])
async def test_the_order_of_a_key_is_kept_by_a_worker(client: AsyncClient, *, is_batch: bool) -> None:
    """Nothing of a pull is begun before what comes before it is done, even if that fails."""
    worker, begun, failed = Worker(topics=[ORDERS]), [], asyncio.Event()
    enough = asyncio.Event()

    async def bill(message: Message) -> None:
        begun.append(message.payload["n"])
        await asyncio.sleep(0.01)  # in which another one would begin
        assert begun[-1] == message.payload["n"]
        if message.payload["n"] == 2 and not failed.is_set():
            failed.set()
            raise Retry(after=0)
        if begun[-1] == 5:
            enough.set()

    async def bill_several(messages: list[Message]) -> None:
        for message in messages:
            await bill(message)

    worker.subscriber("billing", topic=ORDERS, ordered=True)(bill_several if is_batch else bill)
    await worker.declare(client)
    await client.publish("orders", *(Outgoing({"n": n}, ordering_key="a") for n in range(6)))
    serving = asyncio.create_task(worker.serve(client))
    async with asyncio.timeout(60):
        await enough.wait()
    worker.stop()
    await serving
    assert begun == ([0, 1, 2, 0, 1, 2, 3, 4, 5] if is_batch else [0, 1, 2, 2, 3, 4, 5])


def test_an_ordered_subscriber_does_one_thing_at_a_time() -> None:
    with pytest.raises(TypeError, match="subscriber billing: an ordered one does one thing at a time"):
        worker_of(ordered=True, concurrency=5)
    (registration,) = worker_of(ordered=True, concurrency=1).registrations()
    assert registration.ordered


async def test_what_is_missing_is_created(client: AsyncClient) -> None:
    worker = worker_of(filter={"country": ["BR"]}, max_delivery_attempts=3, ack_deadline_seconds=7)
    for _ in range(2):
        await worker.declare(client)
    assert (await client.get_topic("orders")).retention_seconds == 600
    found = await client.get_subscription("billing")
    assert (found.topic_id, found.filter) == ("orders", {"country": ["BR"]})
    assert (found.max_delivery_attempts, found.ack_deadline_seconds) == (3, 7)


async def test_settings_are_brought_in_line(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastpubsub.client")
    await client.create_topic("orders", retention_seconds=60)
    await client.create_subscription("billing", "orders", max_delivery_attempts=9, backoff_max_seconds=77)
    await worker_of(filter={"country": ["BR"]}, max_delivery_attempts=3).declare(client)
    assert (await client.get_topic("orders")).retention_seconds == 600
    found = await client.get_subscription("billing")
    assert (found.filter, found.max_delivery_attempts, found.backoff_max_seconds) == ({"country": ["BR"]}, 3, 77)
    assert "topic orders changes: retention_seconds from 60 to 600" in caplog.messages
    said = 'subscription billing changes: filter from null to {"country": ["BR"]}, max_delivery_attempts from 9 to 3'
    assert said in caplog.messages
    caplog.clear()
    await worker_of("orders", filter={}).declare(client)
    assert (await client.get_subscription("billing")).filter is None


async def test_a_shorter_retention_is_refused(client: AsyncClient) -> None:
    await client.create_topic("orders", retention_seconds=601)
    with pytest.raises(AlreadyExists, match="keeps settled messages for 601 seconds; the 600 that are declared"):
        await worker_of().declare(client)
    assert (await client.get_topic("orders")).retention_seconds == 601


async def test_another_topic_is_refused(client: AsyncClient) -> None:
    await client.create_topic("others")
    await client.create_subscription("billing", "others")
    with pytest.raises(AlreadyExists, match='subscription billing exists, and topic_id is "others", not "orders"'):
        await worker_of().declare(client)


@pytest.mark.parametrize(
    ("present", "wanted", "lost"),
    [
        (None, {"country": ["BR"]}, 2),
        ({"country": ["BR", "US"]}, {"country": ["US", "JP"]}, 1),
        ({"country": ["BR"]}, {"country": ["US"]}, 1),
        ({"country": ["BR"]}, {"country": [{"prefix": "B"}]}, 1),  # nobody can say whether one is within the other
        ({"country": ["BR"]}, {"country": ["BR"], "n": [7]}, 1),
    ],
)
async def test_a_filter_that_would_lose_what_waits_is_refused(
    client: AsyncClient, present: dict[str, Any] | None, wanted: dict[str, Any], lost: int
) -> None:
    await client.create_topic("orders")
    await client.create_subscription("billing", "orders", filter=present)
    await client.publish("orders", *({"country": country} for country in ("BR", "US", "JP")))
    with pytest.raises(AlreadyExists, match=f"the declared filter would keep out {lost} of them"):
        await worker_of("orders", filter=wanted).declare(client)
    assert (await client.get_subscription("billing")).filter == present
    deliveries = await client.pull("billing")
    await client.ack("billing", deliveries)
    await worker_of("orders", filter=wanted).declare(client)
    assert (await client.get_subscription("billing")).filter == wanted


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ({"country": ["BR"]}, {"country": ["BR", "US"]}),
        ({"country": ["BR"]}, {}),
        ({"country": ["BR"], "n": [1]}, {"country": ["BR"]}),
        ({"country": ["JP"]}, {"n": [1]}),
        ({"country": [{"prefix": "B"}]}, {"country": [{"prefix": "B"}, "US"]}),
    ],
)
async def test_a_filter_that_loses_nothing_is_changed(
    client: AsyncClient, present: dict[str, Any], wanted: dict[str, Any]
) -> None:
    await client.create_topic("orders")
    await client.create_subscription("billing", "orders", filter=present)
    await client.publish("orders", {"country": "BR", "n": 1}, {"country": "US", "n": 2})
    await worker_of("orders", filter=wanted).declare(client)
    assert (await client.get_subscription("billing")).filter == (wanted or None)


VALUES = st.lists(
    st.sampled_from([1, 1.0, 2, True, "a", "ab", None, {"prefix": "a"}, {"exists": False}, {"numeric": [">", 1]}]),
    min_size=1,
    max_size=3,
)
FIELDS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
PAYLOADS = st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2, True, "a", "ab", "b", None]))


@given(FIELDS, FIELDS, PAYLOADS)
def test_what_passes_both_filters(one: dict[str, Any], other: dict[str, Any], payload: dict[str, Any]) -> None:
    def passes(filter_: Any) -> bool:
        return matches(read_filter(to_json(filter_ or None)), to_json(payload), None)

    narrowed = both(one, other)
    if narrowed is not None:
        assert passes(narrowed) == (passes(one) and passes(other))


async def test_nothing_is_declared_unless_it_may_be(client: AsyncClient) -> None:
    worker = Worker(declare=False)
    worker.subscriber("billing", topic=ORDERS)(print_)
    await worker.declare(client)
    with pytest.raises(NotFound):
        await client.get_topic("orders")
    with pytest.raises(NotFound):
        await worker.serve(client)


async def print_(order: Order) -> None:
    print(order)


async def test_subscribers_of_routers(client: AsyncClient) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()
    worker, outer, inner = Worker(topics=[Topic("later")]), Router(), Router()
    worker.include_router(outer)
    outer.include_router(inner)

    @inner.subscriber("billing", topic=ORDERS)
    async def bill(order: Order) -> None:
        await seen.put(order.country)
        worker.stop()

    with pytest.raises(ValueError, match="cannot include itself"):
        inner.include_router(worker)
    assert worker.subscriptions == ["billing"]
    await worker.declare(client)
    assert (await client.get_topic("later")).retention_seconds is None
    await client.publish(ORDERS, Order(country="JP"))
    async with asyncio.timeout(30):
        await worker.serve(client)
    assert seen.get_nowait() == "JP"


def test_settings_need_a_topic() -> None:
    with pytest.raises(TypeError, match="subscriber billing: settings of a subscription need its topic: give topic="):
        Worker().subscriber("billing", max_delivery_attempts=3)


async def test_nobody_runs_without_subscribers() -> None:
    with pytest.raises(RuntimeError, match="has no subscribers"):
        await Worker().serve()


async def test_a_server_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    memory = InMemoryBus()
    away = 3

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal away
        away -= 1
        return httpx.Response(503) if away >= 0 else await memory.transport.handle_async_request(request)

    worker = worker_of()
    async with AsyncClient(transport=httpx.MockTransport(answer), policy=QUICK) as client, asyncio.timeout(30):
        task = asyncio.create_task(worker.serve(client))
        while not worker.is_answered:  # noqa: ASYNC110 - it asks the worker
            await asyncio.sleep(0.01)
        worker.stop()
        await task
    assert memory.published("orders") == []


async def test_a_client_that_may_not(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"detail": "the scope topics:read is missing"})

    async with AsyncClient(transport=httpx.MockTransport(refuse), policy=QUICK) as client:
        with pytest.raises(PermissionDenied):
            await worker_of().serve(client)


async def test_the_schema_of_the_type(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    class Invoice(BaseModel):
        cents: int
        paid_at: datetime | None = None

    invoices = Topic("invoices", Invoice, schema=True)
    await client.create_topic("invoices", retention_seconds=60)
    worker = Worker(topics=[invoices])
    for _ in range(2):
        await worker.declare(client)
    assert (
        caplog.messages.count("topic invoices gets another schema: publishers of the present one may be refused") == 1
    )
    await client.publish(invoices, Invoice(cents=7), Invoice(cents=8, paid_at=datetime.now(UTC)))
    with pytest.raises(InvalidRequest):
        await client.publish("invoices", {"cents": "seven"})
    assert (await client.get_topic("invoices")).retention_seconds == 60
    await client.update_topic("invoices", schema=None)
    await client.publish("invoices", {"cents": "seven"})
    await client.delete_topic("invoices")
    await worker.declare(client)
    with pytest.raises(InvalidRequest):
        await client.publish("invoices", {"cents": "seven"})


def test_a_schema_needs_a_type() -> None:
    with pytest.raises(TypeError, match="a schema needs the type"):
        Topic("invoices", Any, schema=True)
