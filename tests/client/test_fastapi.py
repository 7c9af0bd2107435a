"""The bus in the lifespan of an application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel

from fastpubsub.client import Closed, Topic, Worker
from fastpubsub.integrations import fastapi
from fastpubsub.integrations.fastapi import Bus, BusClient, BusPublisher, Lifespan
from fastpubsub.testing import InMemoryBus
from tests.client.conftest import QUICK

SECONDS = 60.0


class Order(BaseModel):
    order_id: int


router = APIRouter()


@router.post("/orders")
async def create_order(order: Order, publisher: BusPublisher) -> str:
    return await publisher.publish("orders", order)


@router.get("/topics/{name}")
async def get_topic(name: str, client: BusClient) -> str:
    return (await client.get_topic(name)).id


def application(lifespan: Lifespan) -> FastAPI:
    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app


@pytest.fixture
def memory() -> InMemoryBus:
    bus = InMemoryBus()
    bus.subscription("billing", "orders")
    return bus


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """With the state of the lifespan, as servers pass it on."""
    async with asyncio.timeout(SECONDS), app.router.lifespan_context(app) as state:

        async def with_state(scope, receive, send):  # type: ignore[no-untyped-def]
            await app(scope | {"state": dict(state or {})}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://shop") as client:
            yield client


async def test_routes_get_a_client_and_a_publisher(memory: InMemoryBus) -> None:
    bus = Bus()
    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            answers = await asyncio.gather(*(shop.post("/orders", json={"order_id": n}) for n in range(20)))
            assert len({answer.json() for answer in answers}) == 20
            assert (await shop.get("/topics/orders")).json() == "orders"
    assert sorted(one["order_id"] for one in memory.published("orders")) == list(range(20))


async def test_applications_that_are_mounted(memory: InMemoryBus) -> None:
    bus = Bus()
    outer = FastAPI(lifespan=bus.lifespan)
    inner = FastAPI()
    inner.include_router(router)
    outer.mount("/inner", inner)
    with bus.override(memory.transport):
        async with opened(outer) as shop:
            assert (await shop.get("/inner/topics/orders")).json() == "orders"


async def test_with_a_lifespan_of_its_own(memory: InMemoryBus) -> None:
    bus = Bus()
    events = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append(await bus.publisher.publish("orders", {"order_id": 1}))
        yield {"own": "state"}
        events.append(await bus.publisher.publish("orders", {"order_id": 2}))

    app = application(bus.lifespan_with(own))

    @app.get("/own")
    async def show(request: Request) -> str:
        return str(request.state.own)

    with bus.override(memory.transport):
        async with opened(app) as shop:
            assert (await shop.get("/own")).json() == "state"
            assert (await shop.get("/topics/orders")).json() == "orders"
    assert len(events) == len(memory.published("orders")) == 2


async def test_subscribers_run_next_to_the_requests(memory: InMemoryBus) -> None:
    bus = Bus()
    billed: asyncio.Queue[int] = asyncio.Queue()

    @bus.subscriber("billing", concurrency=2)
    async def bill(order: Order) -> None:
        await billed.put(order.order_id)

    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            await shop.post("/orders", json={"order_id": 7})
            assert await billed.get() == 7
    with memory.client() as client:
        assert client.metrics("billing").acked == 1


async def test_subscribers_can_run_elsewhere(memory: InMemoryBus) -> None:
    bus = Bus(subscribe=False)
    billed = []

    @bus.subscriber("billing")
    async def bill(order: Order) -> None:
        billed.append(order.order_id)

    assert isinstance(bus.worker, Worker)
    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            await shop.post("/orders", json={"order_id": 7})
            assert not billed
            await memory.drain(bus.worker)
    assert billed == [7]


async def test_the_application_s_own_start_comes_first(caplog: pytest.LogCaptureFixture) -> None:
    """It makes what the subscribers need; they stop before it ends what they use."""
    memory, bus = InMemoryBus(), Bus()
    billed: asyncio.Queue[int] = asyncio.Queue()
    is_open = False

    @asynccontextmanager
    async def own(_app: FastAPI) -> AsyncIterator[None]:
        nonlocal is_open
        await bus.client.create_topic("orders", exist_ok=True)
        await bus.client.create_subscription("billing", "orders", exist_ok=True)
        is_open = True
        yield
        is_open = False

    @bus.subscriber("billing")
    async def bill(order: Order) -> None:
        assert is_open
        await billed.put(order.order_id)

    with bus.override(memory.transport):
        async with opened(application(bus.lifespan_with(own))) as shop:
            await shop.post("/orders", json={"order_id": 7})
            assert await billed.get() == 7
            assert bus.failure is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_bus_in_memory_lets_others_run_as_a_server_does(memory: InMemoryBus) -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async with memory.async_client() as client:
        task = asyncio.create_task(other())
        await client.get_topic("orders")
        order.append("answered")
        await task
    assert order == ["other", "answered"]


async def failing(bus: Bus) -> None:
    while bus.failure is None:  # noqa: ASYNC110 - of another task
        await asyncio.sleep(0)


async def test_subscribers_that_cannot_run_are_told(memory: InMemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus(restart=False)

    @bus.subscriber("nowhere")
    async def handle(order: Order) -> None: ...

    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            await failing(bus)
            assert (await shop.post("/orders", json={"order_id": 1})).status_code == 200
    assert "nowhere" in str(bus.failure)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "the subscribers of this application have stopped and stay stopped"
    ]


async def test_subscribers_are_started_until_they_run(
    memory: InMemoryBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastapi, "AGAIN", QUICK)
    bus = Bus()
    handled: asyncio.Queue[int] = asyncio.Queue()

    @bus.subscriber("later")
    async def handle(order: Order) -> None:
        await handled.put(order.order_id)

    with bus.override(memory.transport), caplog.at_level(logging.INFO, "fastpubsub.client"):
        async with opened(application(bus.lifespan)) as shop:
            for number in (1, 2):
                await failing(bus)
                assert "later" in str(bus.failure)
                memory.subscription("later", "orders")
                await shop.post("/orders", json={"order_id": number})
                assert await handled.get() == number
                assert bus.failure is None
                await bus.client.delete_subscription("later")
    texts = [record.getMessage() for record in caplog.records]
    assert texts.count("the subscribers of this application have stopped and are restarted until they run") >= 2
    assert texts.count("the subscribers of this application run again") == 2


async def test_what_was_published_is_sent_before_it_closes(memory: InMemoryBus) -> None:
    bus = Bus()
    with bus.override(memory.transport):
        async with bus.opened():
            publisher = bus.publisher
            await publisher.enqueue("orders", {"order_id": 1})
    assert memory.published("orders") == [{"order_id": 1}]
    with pytest.raises(Closed):
        await publisher.enqueue("orders", {"order_id": 2})


async def test_a_bus_that_is_not_open() -> None:
    with pytest.raises(RuntimeError, match="the bus is not open yet"):
        _ = Bus().client
    app = application(harness_lifespan)
    async with opened(app) as shop:
        with pytest.raises(RuntimeError, match="the bus is not open yet"):
            await shop.post("/orders", json={"order_id": 1})


@asynccontextmanager
async def harness_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def test_dependencies_of_ones_own(memory: InMemoryBus) -> None:
    bus = Bus()
    app = application(bus.lifespan)

    class Orders:
        def __init__(self, publisher: BusPublisher) -> None:
            self.publisher = publisher

    @app.post("/service")
    async def service(orders: Annotated[Orders, Depends()]) -> str:
        return await orders.publisher.publish("orders", {"order_id": 3})

    with bus.override(memory.transport):
        async with opened(app) as shop:
            assert (await shop.post("/service")).status_code == 200
    assert memory.published("orders") == [{"order_id": 3}]


ORDERS = Topic("orders", Order)


@pytest.mark.parametrize("subscribe", [True, False])
async def test_what_is_declared_is_there_before_the_first_request(*, subscribe: bool) -> None:
    memory, bus = InMemoryBus(), Bus(subscribe=subscribe, topics=[Topic("later")])
    billed: asyncio.Queue[int] = asyncio.Queue()

    @bus.subscriber("billing", topic=ORDERS)
    async def bill(order: Order) -> None:
        await billed.put(order.order_id)

    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            assert (await shop.post("/orders", json={"order_id": 7})).status_code == 200
            assert (await shop.get("/topics/later")).json() == "later"
            if subscribe:
                assert await billed.get() == 7
    with memory.client() as client:
        assert client.metrics("billing").acked == subscribe


@pytest.mark.parametrize("subscribe", [True, False])
async def test_what_cannot_be_declared_stops_no_application(
    monkeypatch: pytest.MonkeyPatch, *, subscribe: bool
) -> None:
    monkeypatch.setattr(fastapi, "AGAIN", QUICK)
    memory, bus = InMemoryBus(), Bus(subscribe=subscribe)
    memory.subscription("billing", "others")

    @bus.subscriber("billing", topic=ORDERS)
    async def bill(order: Order) -> None:
        del order

    with bus.override(memory.transport):
        async with opened(application(bus.lifespan)) as shop:
            assert (await shop.get("/topics/others")).json() == "others"
            await failing(bus)
            assert 'subscription billing exists, and topic_id is "others", not "orders"' in str(bus.failure)
            await bus.client.delete_subscription("billing")
            while bus.failure is not None:  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.01)
    with memory.client() as client:
        assert client.get_subscription("billing").topic_id == "orders"
