"""Subscribers of an application have the dependencies of its routes.

Of FastAPI they use `get_dependant(path=, call=)` and `solve_dependencies(request=, dependant=,
dependency_overrides_provider=, async_exit_stack=, embed_body_fields=)`, which it does not document. If these tests fail
with a new FastAPI, look at what those two take and answer, and change integrations/fastapi_dependencies.py.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Header, Request
from pydantic import BaseModel

from fastpubsub.client import Depends as PlainDepends
from fastpubsub.client import Message, Topic
from fastpubsub.client.options import Once
from fastpubsub.integrations.fastapi import Bus, BusPublisher
from fastpubsub.testing import InMemoryBus
from tests.client.test_fastapi import opened


class Order(BaseModel):
    n: int


ORDERS, BILLS = Topic("orders", Order), Topic("bills", Order)


class Shop:
    """An application whose subscriber has dependencies."""

    def __init__(self, function: Any, lifespan: Any = None, once: Once | None = None) -> None:
        self.memory, self.bus = InMemoryBus(), Bus(topics=[BILLS], subscribe=False)
        self.bus.subscriber("billing", topic=ORDERS, max_delivery_attempts=1, once=once)(function)
        self.app = FastAPI(lifespan=self.bus.lifespan if lifespan is None else self.bus.lifespan_with(lifespan))

        @self.app.post("/drain")
        async def drain(publisher: BusPublisher) -> int:
            await publisher.publish(ORDERS, Order(n=7))
            await self.memory.drain(self.bus.worker)
            return (await self.bus.client.metrics("billing")).acked

    async def handle(self) -> int:
        with self.bus.override(self.memory.transport):
            async with opened(self.app) as client:
                done: int = (await client.post("/drain")).json()
                return done


async def test_generators_functions_and_classes_of_routes() -> None:
    seen: list[Any] = []

    async def session() -> AsyncIterator[str]:
        yield "session"
        seen.append("closed")

    def plain(opened: Annotated[str, Depends(session)]) -> Iterator[str]:
        yield f"plain with {opened}"

    class Service:
        def __init__(self, publisher: BusPublisher) -> None:
            self.publisher = publisher

    async def bill(
        order: Order,
        message: Message,
        one: Annotated[str, Depends(plain)],
        two: Annotated[str, PlainDepends(session)],
        service: Annotated[Service, Depends()],
        three: Any = Depends(session),
    ) -> None:
        seen.append((order.n, message.payload, one, two, three))
        await service.publisher.publish(BILLS, order)

    shop = Shop(bill)
    assert await shop.handle() == 1
    assert seen == [(7, {"n": 7}, "plain with session", "session", "session"), "closed"]
    assert shop.memory.published("bills") == [{"n": 7}]


async def test_scopes_of_routes_open_no_second_session() -> None:
    """What `once` remembers in is the session of the work, however that asks for it."""
    sessions: list[object] = []
    used: list[object] = []

    async def session() -> AsyncIterator[object]:
        sessions.append(object())
        yield sessions[-1]

    def of_request(opened: Annotated[object, Depends(session)]) -> object:
        return opened

    def of_function(opened: Annotated[object, Depends(session, scope="function")]) -> object:
        return opened

    async def bill(
        order: Order,
        one: Annotated[object, Depends(of_request)],
        two: Annotated[object, Depends(of_function)],
        three: Annotated[object, Depends(session, scope="function")],
    ) -> None:
        used.extend([one, two, three])

    async def is_first(opened: object, _message: Message) -> bool:
        used.append(opened)
        return True

    assert await Shop(bill, once=Once(session, is_first)).handle() == 1
    assert used == sessions * 4


async def test_overrides_of_tests() -> None:
    seen: list[str] = []

    def real() -> str:
        return "real"

    async def bill(order: Order, name: Annotated[str, Depends(real)]) -> None:
        seen.append(name)

    shop = Shop(bill)
    shop.app.dependency_overrides[real] = lambda: "of a test"
    assert await shop.handle() == 1
    assert seen == ["of a test"]


async def test_the_request_has_the_state_and_the_message() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"name": "shop"}

    def look(request: Request) -> Any:
        return request.state.name, request.state.message.payload, request.app.title

    async def bill(order: Order, found: Annotated[Any, Depends(look)]) -> None:
        seen.append(found)

    assert await Shop(bill, lifespan).handle() == 1
    assert seen == [("shop", {"n": 7}, "FastAPI")]


async def test_an_error_while_closing_lets_the_message_come_again() -> None:
    def session() -> Iterator[None]:
        yield
        raise OSError("the commit failed")

    async def bill(order: Order, nothing: Annotated[None, Depends(session)]) -> None:
        del order

    shop = Shop(bill)
    assert await shop.handle() == 0
    with shop.memory.client() as client:
        assert client.metrics("billing").dlq == 1


async def test_what_only_requests_have(caplog: pytest.LogCaptureFixture) -> None:
    async def token(authorization: Annotated[str, Header()]) -> str:
        return authorization

    async def bill(order: Order, given: Annotated[str, Depends(token)]) -> None:
        del order, given

    assert await Shop(bill).handle() == 0
    assert (
        "dependencies of test_what_only_requests_have.<locals>.bill take what a message does not have: " in caplog.text
    )
    assert "header.authorization" in caplog.text


async def read(body: Annotated[dict[str, int], Body()]) -> None:
    del body


async def notify(tasks: BackgroundTasks) -> None:
    tasks.add_task(print)


@pytest.mark.parametrize(
    ("dependency", "why"),
    [
        (read, "the body of a request, which a message does not have"),
        (notify, "BackgroundTasks, which no answer would start"),
    ],
)
async def test_what_would_be_lost_is_refused_at_the_start(dependency: Any, why: str) -> None:
    async def bill(order: Order, nothing: Annotated[None, Depends(dependency)]) -> None:
        del order, nothing

    with pytest.raises(TypeError, match=why):
        await Shop(bill).handle()


async def test_without_the_application() -> None:
    """As `fastpubsub worker shop:bus.worker` runs it."""
    memory, bus = InMemoryBus(), Bus(topics=[BILLS])

    @bus.subscriber("billing", topic=ORDERS)
    async def bill(order: Order, publisher: BusPublisher) -> None:
        await publisher.publish(BILLS, order)
        bus.worker.stop()

    await memory.declare(bus.worker)
    with memory.client() as client:
        client.publish(ORDERS, Order(n=1))
    with bus.override(memory.transport):
        await bus.worker.serve()
    assert memory.published("bills") == [{"n": 1}]
