"""Middlewares, time limits, results that are published, exceptions that are expected, and tracebacks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from fastpubsub.client import Message, Outgoing, Reject, Retry, Router, Topic, Worker
from fastpubsub.testing import InMemoryBus


class Order(BaseModel):
    n: int


class Bill(BaseModel):
    order: int


BILLS = Topic("bills", Bill)


@pytest.fixture
def memory() -> InMemoryBus:
    bus = InMemoryBus()
    bus.subscription("billing", "orders", backoff_min_seconds=0, max_delivery_attempts=2)
    return bus


async def run(memory: InMemoryBus, worker: Worker, *numbers: int) -> tuple[int, int, int]:
    """Waiting, done, dead."""
    with memory.client() as client:
        client.publish("orders", *({"n": n} for n in numbers or (1,)))
        await memory.drain(worker)
        metrics = client.metrics("billing")
        return metrics.available, metrics.acked, metrics.dlq


async def test_middlewares(memory: InMemoryBus) -> None:
    said: list[str] = []
    worker, router = Worker(), Router()

    @worker.middleware
    async def outer(message: Message, call_next: Callable[[], Awaitable[Any]]) -> Any:
        said.append(f"outer {message.payload['n']}")
        try:
            return await call_next()
        except ValueError:
            said.append("a value error")
            raise Reject("made of it") from None

    @router.middleware
    async def inner(message: Message, call_next: Callable[[], Awaitable[Any]]) -> Any:
        said.append("inner")
        result = await call_next()
        said.append(f"result {result}")
        return result

    @router.subscriber("billing", concurrency=1)
    async def bill(order: Order) -> str:
        if order.n == 2:
            raise ValueError("no")
        return "done"

    worker.include_router(router)
    assert await run(memory, worker, 1, 2) == (0, 1, 1)
    assert said == ["outer 1", "inner", "result done", "outer 2", "inner", "a value error"]


def test_a_middleware_is_asynchronous() -> None:
    with pytest.raises(TypeError, match="a middleware is an `async def`"):
        Worker().middleware(lambda message, call_next: call_next())


async def test_a_time_limit(memory: InMemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    cancelled: list[int] = []

    @worker.subscriber("billing", timeout_seconds=0.01)
    async def bill(order: Order) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(order.n)
            raise

    assert await run(memory, worker) == (0, 0, 1)
    assert cancelled == [1, 1]
    assert [one.exc_info for one in caplog.records if "bill took longer than 0.01 seconds" in one.message] == [None] * 2


async def test_a_timeout_of_its_own_is_an_error_like_others(
    memory: InMemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()

    @worker.subscriber("billing", timeout_seconds=60)
    async def bill(order: Order) -> None:
        raise TimeoutError("of the bank")

    assert await run(memory, worker) == (0, 0, 1)
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_times_that_are_no_limit(seconds: float) -> None:
    with pytest.raises(ValueError, match="a positive number"):
        Worker().subscriber("billing", timeout_seconds=seconds)


def test_threads_cannot_be_limited() -> None:
    with pytest.raises(TypeError, match="a time limit needs `async def`"):
        Worker().subscriber("billing", timeout_seconds=1)(lambda payload: None)


async def test_results_are_published(memory: InMemoryBus) -> None:
    worker = Worker()

    @worker.subscriber("billing", publish_to=BILLS)
    async def bill(order: Order) -> Bill | list[Any] | None:
        results = {1: Bill(order=1), 2: None, 3: [Bill(order=30), Outgoing(Bill(order=31), {"a": "b"})]}
        return results[order.n]

    assert await run(memory, worker, 1, 2, 3) == (0, 3, 0)
    assert sorted(one["order"] for one in memory.published("bills")) == [1, 30, 31]


async def test_a_result_of_another_type_fails(memory: InMemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    @worker.subscriber("billing", publish_to=BILLS)
    def bill(order: Order) -> Order:
        return order

    assert await run(memory, worker) == (0, 0, 1)
    assert memory.published("bills") == []
    assert "topic bills takes Bill, not Order" in caplog.text


async def test_a_result_is_published_once(memory: InMemoryBus) -> None:
    """The handler ran, its result is there, and the message comes again."""
    worker = Worker()
    tries: list[int] = []

    @worker.middleware
    async def fail_first(message: Message, call_next: Callable[[], Awaitable[Any]]) -> Any:
        result = await call_next()
        tries.append(1)
        if len(tries) == 1:
            raise Retry(after=0)
        return result

    @worker.subscriber("billing", publish_to=BILLS)
    async def bill(order: Order) -> Bill:
        return Bill(order=order.n)

    assert await run(memory, worker) == (0, 1, 0)
    assert (len(tries), memory.published("bills")) == (2, [{"order": 1}])


async def test_exceptions_that_are_expected(memory: InMemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastpubsub.client")
    worker = Worker()
    tries: list[int] = []

    @worker.subscriber("billing", retry_on=ConnectionError, reject_on=(KeyError, ValueError))
    async def bill(order: Order) -> None:
        tries.append(order.n)
        if order.n == 1 and tries.count(1) == 1:
            raise ConnectionResetError("by the bank")
        if order.n == 2:
            raise KeyError("account")
        if order.n == 3:
            raise Retry(after=0)

    assert await run(memory, worker, 1, 2, 3) == (0, 1, 2)
    assert sorted(tries) == [1, 1, 2, 3, 3]
    with memory.client() as client:
        assert [one.reason for one in client.list_dead_letters("billing")] == [
            "KeyError: 'account'",
            "nacked on delivery attempt 2 of 2",
        ]
    assert not any(one.exc_info for one in caplog.records)
    assert any("bill raised ConnectionResetError(by the bank)" in one.message for one in caplog.records)


@pytest.mark.parametrize("given", ["ValueError", (ValueError, 3), KeyboardInterrupt])
def test_what_is_no_exception(given: Any) -> None:
    with pytest.raises(TypeError, match="reject_on is an exception class"):
        Worker().subscriber("billing", reject_on=given)


@pytest.mark.parametrize("layers", [{}, {"timeout_seconds": 60}])
async def test_tracebacks_begin_at_the_frame_of_the_user(
    memory: InMemoryBus, caplog: pytest.LogCaptureFixture, layers: dict[str, Any]
) -> None:
    worker = Worker()

    async def bill(order: Order) -> None:
        raise LookupError(f"order {order.n}")

    def plainly(order: Order) -> None:
        raise LookupError(f"order {order.n}")

    for function in (bill,) if layers else (bill, plainly):
        caplog.clear()
        worker = Worker()
        worker.subscriber("billing", **layers)(function)
        await run(memory, worker)
        assert caplog.records[0].exc_info is not None
        traceback = caplog.records[0].exc_info[2]
        assert traceback is not None
        assert traceback.tb_frame.f_code is function.__code__
