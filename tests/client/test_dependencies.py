"""What handlers get by `Depends`, outside of FastAPI."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from fastpubsub.client import Depends, Message, Reject, Worker
from fastpubsub.testing import InMemoryBus


class Order(BaseModel):
    n: int


@pytest.fixture
def memory() -> InMemoryBus:
    bus = InMemoryBus()
    bus.subscription("billing", "orders", backoff_min_seconds=0)
    return bus


async def handle(memory: InMemoryBus, function: Callable[..., Any], *numbers: int) -> tuple[int, int, int]:
    """Waiting, done, dead."""
    worker = Worker()
    worker.subscriber("billing")(function)
    with memory.client() as client:
        client.publish("orders", *({"n": n} for n in numbers or (1,)))
        await memory.drain(worker)
        metrics = client.metrics("billing")
        return metrics.available, metrics.acked, metrics.dlq


async def test_every_kind(memory: InMemoryBus) -> None:
    seen: list[Any] = []

    def plain() -> str:
        return f"plain {threading.current_thread() is threading.main_thread()}"

    async def asynchronous(first: Annotated[str, Depends(plain)]) -> str:
        return f"asynchronous after {first}"

    def generator() -> Iterator[str]:
        yield "generator"
        seen.append("generator closed")

    async def async_generator(message: Message, inner: str = Depends(generator)) -> AsyncIterator[str]:
        yield f"{inner} of {message.payload['n']}"
        seen.append("async generator closed")

    class Service:
        def __init__(self, name: str = Depends(plain)) -> None:
            self.name = name

    async def bill(
        one: Annotated[str, Depends(asynchronous)],
        order: Order,
        service: Annotated[Service, Depends()],
        message: Message,
        two: str = Depends(async_generator),
    ) -> None:
        seen.append((one, order.n, service.name, message.payload, two))

    assert await handle(memory, bill, 7) == (0, 1, 0)
    assert seen == [
        ("asynchronous after plain False", 7, "plain False", {"n": 7}, "generator of 7"),
        "async generator closed",
        "generator closed",
    ]


async def test_for_plain_functions(memory: InMemoryBus) -> None:
    seen: list[tuple[str, int]] = []

    async def name() -> str:
        return "name"

    def bill(order: Order, named: str = Depends(name)) -> None:
        seen.append((named, order.n))

    assert await handle(memory, bill, 1, 2) == (0, 2, 0)
    assert sorted(seen) == [("name", 1), ("name", 2)]


async def test_once_for_a_delivery(memory: InMemoryBus) -> None:
    calls: list[int] = []

    async def count() -> int:
        calls.append(1)
        return len(calls)

    async def bill(
        order: Order,
        one: int = Depends(count),
        two: int = Depends(count),
        three: int = Depends(count, use_cache=False),
    ) -> None:
        assert one == two
        assert three == one + 1

    assert await handle(memory, bill, 1, 2) == (0, 2, 0)
    assert len(calls) == 4


@pytest.mark.parametrize("error", [ValueError("no"), Reject("no")])
async def test_what_a_handler_raises_reaches_them_before_the_message_is_settled(
    memory: InMemoryBus, error: Exception
) -> None:
    seen: list[Any] = []

    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        except Exception as raised:
            with memory.client() as client:
                seen.append((raised, client.metrics("billing").delivered))
            raise

    async def bill(order: Order, opened: str = Depends(session)) -> None:
        raise error

    dead = isinstance(error, Reject)
    assert await handle(memory, bill) == (0, 0, 1)
    assert seen[0] == (error, 1)
    assert len(seen) == (1 if dead else 5)


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_cannot_be_committed_comes_again(memory: InMemoryBus, *, is_async: bool) -> None:
    tries: list[int] = []

    def commit() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the database is away")

    async def asynchronous() -> AsyncIterator[None]:
        yield
        commit()

    def plain() -> Iterator[None]:
        yield
        commit()

    async def bill(order: Order, nothing: None = Depends(asynchronous if is_async else plain)) -> None:
        del order

    assert await handle(memory, bill) == (0, 1, 0)
    assert len(tries) == 3


async def test_a_plain_generator_hears_of_an_error(memory: InMemoryBus) -> None:
    seen: list[str] = []

    def swallowing() -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield
        seen.append("closed")

    async def bill(order: Order, nothing: None = Depends(swallowing)) -> None:
        raise ValueError("no")

    assert await handle(memory, bill) == (0, 1, 0)
    assert seen == ["closed"]


async def test_a_dependency_that_fails(memory: InMemoryBus) -> None:
    def unable() -> None:
        raise Reject("there is no database")

    async def bill(order: Order, nothing: None = Depends(unable)) -> None:
        raise AssertionError("it is not called")

    assert await handle(memory, bill) == (0, 0, 1)


def needs_more(amount: int) -> int:
    return amount


def itself(again: Any = None) -> None:
    del again


@pytest.mark.parametrize(
    ("dependency", "said"),
    [
        (needs_more, "nobody gives the dependency needs_more its argument 'amount'"),
        (3, "the dependency int cannot be called"),
    ],
)
async def test_what_is_no_dependency(memory: InMemoryBus, dependency: Any, said: str) -> None:
    async def bill(order: Order, value: int = Depends(dependency)) -> None:
        del order, value

    with pytest.raises(TypeError, match=said):
        await handle(memory, bill)


async def test_a_circle(memory: InMemoryBus) -> None:
    itself.__defaults__ = (Depends(itself),)

    async def bill(order: Order, value: None = Depends(itself)) -> None:
        del order, value

    with pytest.raises(TypeError, match="the dependency itself depends on itself"):
        await handle(memory, bill)
