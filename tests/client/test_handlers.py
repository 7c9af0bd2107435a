"""What a function is called with, and what becomes of its message."""

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from fastpubsub.client import Delivery, Message, Reject, Retry
from fastpubsub.client.deliveries import ACK, NACK, Outcome
from fastpubsub.client.handlers import Handler

TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Order(BaseModel):
    order_id: int
    total: float = 0


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    on: date


@dataclass
class Refund:
    order_id: int


class Typed(TypedDict):
    order_id: int


class Created(BaseModel):
    kind: Literal["created"]


class Deleted(BaseModel):
    kind: Literal["deleted"]


def delivery(**payload: Any) -> Delivery:
    return Delivery(
        id=UUID("019c13cb-6d29-7000-8000-040000000001"),
        subscription_id="billing",
        payload=payload,
        delivery_attempts=3,
        created_at=TIME,
        ack_id="019c13cb-6d29-7000-8000-040000000001.0123456789abcdef",
        lease_expires_at=TIME,
    )


async def call(function: Callable[..., Any], **payload: Any) -> Outcome:
    return await Handler(function)(delivery(**payload), None)


@pytest.mark.parametrize(
    "annotation", [Order, Refund, Typed, dict[str, int], dict, Any, None, Created | Deleted | Order]
)
async def test_payloads(annotation: Any) -> None:
    seen = []

    async def handle(payload: Any) -> None:
        seen.append(payload)

    handle.__annotations__ = {"payload": annotation} if annotation else {}
    assert await call(handle, order_id=7) == ACK
    (payload,) = seen
    value = payload["order_id"] if isinstance(payload, dict) else payload.order_id
    assert value == 7


async def test_unions_are_told_apart() -> None:
    seen = []

    async def handle(event: Created | Deleted) -> None:
        seen.append(type(event))

    await call(handle, kind="deleted")
    await call(handle, kind="created")
    assert seen == [Deleted, Created]


async def test_a_strict_model_reads_json() -> None:
    seen = []

    async def handle(payload: Strict) -> None:
        seen.append(payload.on)

    assert await call(handle, on="2026-01-31") == ACK
    assert seen == [date(2026, 1, 31)]


async def test_the_message_as_well_or_alone() -> None:
    seen: list[Any] = []

    async def both(order: Order, message: Message) -> None:
        seen.append((order.order_id, message.delivery_attempts))

    async def swapped(message: Delivery, order: Order) -> None:
        seen.append((order.order_id, message.lease_lost))

    async def alone(message: Message) -> None:
        seen.append(message.payload)

    async def with_default(order: Order, extra: int = 5) -> None:
        seen.append(extra)

    for function in (both, swapped, alone, with_default):
        assert await call(function, order_id=1) == ACK
    assert seen == [(1, 3), (1, False), {"order_id": 1}, 5]


async def test_objects_methods_and_partials() -> None:
    seen = []

    class Service:
        async def method(self, order: Order) -> None:
            seen.append("method")

        async def __call__(self, order: Order) -> None:
            seen.append("object")

    async def with_prefix(prefix: str, order: Order) -> None:
        seen.append(prefix)

    for function in (Service().method, Service(), functools.partial(with_prefix, "partial")):
        assert await call(function, order_id=1) == ACK
    assert seen == ["method", "object", "partial"]


async def test_plain_functions_run_in_threads_with_their_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("context")
    seen = []

    def handle(order: Order) -> None:
        import threading

        seen.append((threading.current_thread().name[:3], variable.get()))

    with ThreadPoolExecutor(1, "abc") as threads:
        assert await Handler(handle)(delivery(order_id=1), threads) == ACK
    assert seen == [("abc", "context")]


async def test_what_does_not_fit_is_rejected_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(order: Order) -> None:
        raise AssertionError

    outcome = await call(handle, total="SECRET")
    assert outcome.kind == "reject"
    assert outcome.reason == (
        "the payload does not fit Order: order_id: Field required; "
        "total: Input should be a valid number, unable to parse string as a number"
    )
    assert "SECRET" not in caplog.text


async def test_the_reason_is_bounded() -> None:
    async def handle(numbers: dict[str, int]) -> None: ...

    outcome = await call(handle, **{"x" * 400 + str(n): "no" for n in range(9)})
    assert len(outcome.reason) == 1024
    outcome = await call(handle, **{f"x{n}": "no" for n in range(9)})
    assert outcome.reason.endswith("; and 4 more")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Retry(), NACK),
        (Retry("busy", after=0), Outcome("nack", 0)),
        (Retry(after=2.1), Outcome("nack", 3)),
        (Retry(after=-1), Outcome("nack", 0)),
        (Retry(after=1e9), Outcome("nack", 604800)),
        (Reject("because"), Outcome("reject", None, "because")),
        (Reject("x" * 2000), Outcome("reject", None, "x" * 1024)),
    ],
)
async def test_saying_what_becomes_of_it(error: Exception, outcome: Outcome) -> None:
    async def handle(order: Order) -> None:
        raise error

    assert await call(handle, order_id=1) == outcome


async def test_any_other_exception_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(order: Order) -> None:
        Order.model_validate({"total": 1})

    with caplog.at_level(logging.INFO):
        assert await call(handle, order_id=1) == NACK
    (record,) = caplog.records
    assert record.exc_info
    assert record.levelno == logging.ERROR
    assert "message_id=019c13cb-6d29-7000-8000-040000000001 delivery_attempts=3" in record.getMessage()


def test_what_cannot_be_called() -> None:
    async def nothing() -> None: ...

    async def two(one: Order, other: Order) -> None: ...

    async def two_messages(one: Message, other: Message) -> None: ...

    async def unreadable(one: object()) -> None: ...  # type: ignore[valid-type]

    async def unknown(one: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (nothing, two, two_messages, unreadable, unknown):
        with pytest.raises(TypeError, match=function.__name__):
            Handler(function)
