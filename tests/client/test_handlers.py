"""What a function is called with, and what becomes of its message."""

import asyncio
import functools
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType, TypedDict

from fastpubsub.client import Delivery, Message, Reject, Retry
from fastpubsub.client.deliveries import ACK, NACK, Outcome
from fastpubsub.client.handlers import Handler
from fastpubsub.client.reading import reader_of
from fastpubsub.client.threads import THREADS, Threads

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
        lease_seconds=60,
    )


async def call(function: Callable[..., Any], **payload: Any) -> Outcome:
    return await handled(Handler(function), delivery(**payload))


async def handled(handler: Handler, one: Delivery) -> Outcome:
    """As a consumer does it."""
    threads = None if handler.is_async else Threads(1)
    try:
        return await handler(one, threads)
    finally:
        if threads is not None:
            threads.close()


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


Renamed = NewType("Renamed", Message)
AnyMessage = TypeVar("AnyMessage", bound=Message)
MESSAGES = [
    Message,
    Delivery,
    Optional[Message],  # noqa: UP045 - as people write it
    Message | None,
    Message | Delivery,
    Annotated[Message, "anything"],
    Annotated[Delivery | None, "anything"],
    Optional[Annotated[Message, "anything"]],  # noqa: UP045
    Optional["Message"],
    "Message",
    "Message | None",
    "Annotated[Message, 'anything']",
    Renamed,
    AnyMessage,
    TypeAliasType("Alias", Message),
]


@pytest.mark.parametrize("annotation", MESSAGES)
async def test_however_the_message_is_annotated(annotation: Any) -> None:
    seen: list[Any] = []

    async def second(order: Order, m: Any) -> None:
        seen.append(m)

    async def by_keyword(order: Order, *, m: Any) -> None:
        seen.append(m)

    async def alone_by_keyword(*, m: Any) -> None:
        seen.append(m)

    async def with_default(order: Order, extra: int = 5, m: Any = None) -> None:
        seen.append(m)

    async def only_by_position(m: Any, order: Order, /) -> None:
        seen.append(m)

    functions: list[Any] = [second, by_keyword, alone_by_keyword, with_default, only_by_position]
    for function in functions:
        function.__annotations__["m"] = annotation
        assert await call(function, order_id=1) == ACK
    assert [type(message) for message in seen] == [Delivery] * 5


@pytest.mark.parametrize(
    "annotation",
    [tuple[Message, ...], Message | Order, type[Message], Optional[list["Message"]], Callable[[], Message]],  # noqa: UP045
)
def test_what_is_made_of_messages_is_refused(annotation: Any) -> None:
    async def handle(m: Any) -> None: ...

    async def beside(order: Order, m: Any = None) -> None: ...

    async def several(order: Order, *m: Message) -> None: ...

    functions: list[Any] = [handle, beside]
    for function in functions:
        function.__annotations__["m"] = annotation
    for function in [*functions, several]:
        with pytest.raises(TypeError, match=f"{function.__name__}: a handler gets a message or a list of them, .* 'm'"):
            Handler(function)


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
    for function in (functools.partial(with_prefix, prefix="named"), functools.partial(Service())):
        assert await call(function, order_id=1) == ACK
    assert seen == ["method", "object", "partial", "named", "object"]


class Later:
    """Can be awaited, and is no coroutine."""

    def __init__(self, seen: list[str], name: str) -> None:
        self.seen = seen
        self.name = name

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.sleep(0).__await__()
        self.seen.append(self.name)


async def test_what_is_left_to_be_awaited_is_awaited() -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    @functools.wraps(work)
    def decorated(name: Any) -> Any:
        return work("decorator")

    async def forgotten(order: Order) -> Any:
        return work("forgotten await")

    def in_a_thread(order: Order) -> Any:
        return threads.submit(seen.append, "future of a thread")

    async def a_task(order: Order) -> Any:
        return asyncio.create_task(work("task"))

    decorated.__annotations__["name"] = Order
    work.__annotations__["name"] = Order
    with ThreadPoolExecutor(2) as threads:
        functions: list[Any] = [lambda order: work("lambda"), decorated, forgotten, a_task, in_a_thread]
        for function in [*functions, lambda order: Later(seen, "object")]:
            assert await call(function, order_id=1) == ACK
    assert seen == ["lambda", "decorator", "forgotten await", "task", "future of a thread", "object"]


async def test_what_fails_while_it_is_awaited() -> None:
    async def fails() -> None:
        raise Reject("late")

    assert await call(lambda order: fails(), order_id=1) == Outcome("reject", None, "late")


def test_what_would_never_be_run_is_refused() -> None:
    def generator(order: Order) -> Any:
        yield order

    async def asynchronous(order: Order) -> Any:
        yield order

    class Service:
        def __init__(self, order: Order) -> None: ...

        def __call__(self, order: Order) -> Any:
            yield order

    service = Service(Order(order_id=1))
    functions: list[Any] = [generator, asynchronous, functools.partial(generator), service, service.__call__]
    for function in functions:
        with pytest.raises(TypeError, match="is a generator, which would never run"):
            Handler(function)
    with pytest.raises(TypeError, match="is a class"):
        Handler(Service)


async def test_a_generator_that_is_returned_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    def generator() -> Any:
        yield

    async def asynchronous() -> Any:
        yield

    reason = "TypeError: a handler returned a generator, which would never run"
    assert await call(lambda order: generator(), order_id=1) == Outcome("nack", None, reason)
    assert await call(lambda order: asynchronous(), order_id=1) == Outcome("nack", None, reason)
    assert caplog.text.count("\nTypeError: a handler returned a generator, which would never run") == 2


async def test_plain_functions_run_in_threads_with_their_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("context")
    seen = []

    def handle(order: Order) -> None:
        import threading

        seen.append((threading.current_thread().name[: len(THREADS)], variable.get()))

    assert await call(handle, order_id=1) == ACK
    assert seen == [(THREADS, "context")]


@pytest.mark.parametrize(
    "text", ["12345678901234567.89", "1e400", "-1e-400", "0.1", "1e2", "7", "1.10", f"0.{'3' * 900}"]
)
async def test_decimals_are_exact(text: str) -> None:
    class Price(BaseModel):
        amount: Decimal
        rounded: float
        on: date

    seen: list[Any] = []

    async def handle(price: Price) -> None:
        seen.extend([price.amount, price.rounded])

    assert await handled_as_json(handle, f'{{"amount": {text}, "rounded": {text}, "on": "2026-01-31"}}') == ACK
    assert seen == [Decimal(text), float(text)]
    assert type(seen[1]) is float


NUMBERS = st.builds("{}e{}".format, st.integers(-(10**30), 10**30), st.integers(-500, 500)).map(Decimal)


@given(numbers=st.dictionaries(st.text("abc", min_size=1), NUMBERS))
@settings(max_examples=50)
async def test_any_decimals_are_exact(numbers: dict[str, Decimal]) -> None:
    seen: list[Any] = []

    async def handle(payload: dict[str, Decimal | None]) -> None:
        seen.append(payload)

    members = ", ".join(f'"{name}": {number}' for name, number in numbers.items())
    assert await handled_as_json(handle, f"{{{members}}}") == ACK
    assert seen == [numbers]


async def test_a_strict_model_is_read_as_json(caplog: pytest.LogCaptureFixture) -> None:
    class Price(BaseModel):
        model_config = ConfigDict(strict=True)

        amount: Decimal
        rounded: float
        on: date

    seen: list[Any] = []

    async def handle(price: Price) -> None:
        seen.extend([price.amount, price.rounded])

    payload = '{"amount": "12345678901234567.89", "rounded": 0.1000000000000000055, "on": "2026-01-31"}'
    assert await handled_as_json(handle, payload) == ACK
    assert seen == [Decimal("12345678901234567.89"), 0.1]


async def handled_as_json(function: Callable[..., Any], payload: str) -> Outcome:
    """As it comes with the answer to a pull."""
    handler = Handler(function)
    message = delivery().model_dump_json(exclude={"payload"})
    answer = f'{{"data": [{message[:-1]}, "payload": {payload}}}]}}'.encode()
    (one,) = reader_of(handler)(answer).data
    return await handled(handler, one)


async def test_what_does_not_fit_is_rejected_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(order: Order) -> None:
        raise AssertionError

    outcome = await call(handle, total="SECRET")
    assert outcome.kind == "reject"
    assert outcome.reason == (
        "the payload does not match Order: order_id: Field required; "
        "total: Input should be a valid number, unable to parse string as a number"
    )
    assert "SECRET" not in caplog.text


async def test_the_reason_is_bounded() -> None:
    async def handle(numbers: dict[str, int]) -> None: ...

    outcome = await call(handle, **{"x" * 400 + str(n): "no" for n in range(9)})
    assert len(outcome.reason) == 1024
    outcome = await call(handle, **{f"x{n}": "no" for n in range(9)})
    assert outcome.reason.endswith("; and 4 more")


class Broken(Reject):
    def __init__(self) -> None: ...

    @property
    def reason(self) -> Any:  # type: ignore[override]
        raise RuntimeError("a defect of theirs")


class Unprintable:
    def __str__(self) -> str:
        raise SystemExit


class WithoutReason(Reject):
    def __init__(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Retry(), NACK),
        (Retry("busy", after=0), Outcome("nack", 0, "busy")),
        (Retry("x" * 2000), Outcome("nack", None, "x" * 1024)),
        (OSError("the disk is full"), Outcome("nack", None, "OSError: the disk is full")),
        (Retry(after=2.1), Outcome("nack", 3)),
        (Retry(after=-1), Outcome("nack", 0)),
        (Retry(after=1e9), Outcome("nack", 604800)),
        (Retry(after=10**400), Outcome("nack", 604800)),
        (Retry(after=float("inf")), Outcome("nack", 604800)),
        (Retry(after=float("-inf")), Outcome("nack", 0)),
        (Retry(after=float("nan")), NACK),
        (Retry(after=Decimal("sNaN")), NACK),  # type: ignore[arg-type]
        (Retry(after="soon"), NACK),  # type: ignore[arg-type]
        (Retry(after=timedelta(minutes=1)), Outcome("nack", 60)),
        (Retry(after=timedelta.max), Outcome("nack", 604800)),
        (Reject("because"), Outcome("reject", None, "because")),
        (Reject("x" * 2000), Outcome("reject", None, "x" * 1024)),
        (Reject("x\udcff.csv"), Outcome("reject", None, "x\\udcff.csv")),
        (Reject("\udcff" * 1000), Outcome("reject", None, ("\\udcff" * 171)[:1024])),
        (Reject("a\0b"), Outcome("reject", None, "a\\x00b")),
        (Reject(ValueError("too much")), Outcome("reject", None, "ValueError: too much")),
        (Reject(ValueError()), Outcome("reject", None, "ValueError")),
        (Reject(7), Outcome("reject", None, "7")),
        (Reject(None), Outcome("reject", None, "rejected")),
        (Reject(""), Outcome("reject", None, "rejected")),
        (Reject(Unprintable()), Outcome("reject", None, "Unprintable")),
        (WithoutReason(), Outcome("reject", None, "rejected")),
        (Broken(), NACK),
    ],
)
async def test_saying_what_becomes_of_it(error: Exception, outcome: Outcome) -> None:
    async def handle(order: Order) -> None:
        raise error

    async def returns(order: Order) -> Exception:
        return error

    assert await call(handle, order_id=1) == outcome
    assert await call(returns, order_id=1) == outcome


ANYTHING = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.timedeltas(),
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Lu"])),
    st.binary(),
    st.builds(ValueError, st.text()),
    st.builds(Unprintable),
    st.lists(st.integers()),
)
ERRORS = st.one_of(
    st.builds(Reject, ANYTHING),
    st.builds(lambda reason, after: Retry(reason, after=after), ANYTHING, ANYTHING),
    st.builds(
        lambda kind, argument: kind(argument),
        st.sampled_from(
            [RuntimeError, StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError]
        ),
        ANYTHING,
    ),
    st.builds(asyncio.CancelledError),
    st.builds(lambda one: BaseExceptionGroup("several", [one]), st.sampled_from([SystemExit(1), Reject("x")])),
    st.builds(Broken),
    st.builds(WithoutReason),
)


@given(st.booleans(), st.booleans(), st.one_of(ERRORS, ANYTHING))
# What makes the things may be slow on a busy machine.
async def test_whatever_a_handler_does_has_one_outcome(
    caplog: pytest.LogCaptureFixture, is_async: bool, raises: bool, thing: Any
) -> None:
    """And one line in the log that names it, unless it went well."""

    def do() -> Any:
        if raises and isinstance(thing, BaseException):
            raise thing
        return thing

    async def coroutine(order: Order) -> Any:
        return do()

    def plain(order: Order) -> Any:
        return do()

    caplog.clear()
    function = coroutine if is_async else plain
    with caplog.at_level(logging.INFO):
        outcome = await call(function, order_id=1)
    # asyncio may tell here what became of the tasks of another test.
    records = [record for record in caplog.records if record.name.startswith("fastpubsub")]
    if outcome == ACK:
        assert not isinstance(thing, BaseException)
        assert not records
        return
    (record,) = records
    assert function.__name__ in record.getMessage()
    assert "message_id=019c13cb-6d29-7000-8000-040000000001" in record.getMessage()
    request = outcome.request("billing", ["019c13cb-6d29-7000-8000-040000000001.0123456789abcdef"])
    if outcome.kind == "reject":
        assert "\0" not in outcome.reason
        assert request.content
        assert 1 <= len(outcome.reason) <= 1024
    else:
        assert outcome.delay_seconds is None or 0 <= outcome.delay_seconds <= 604800


async def test_a_handler_that_cancels_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(order: Order) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    assert await asyncio.create_task(call(handle, order_id=1)) == Outcome("nack", None, "CancelledError")
    assert "handle was cancelled: subscription_id=billing" in caplog.text


async def test_any_other_exception_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(order: Order) -> None:
        Order.model_validate({"total": 1})

    with caplog.at_level(logging.INFO):
        outcome = await call(handle, order_id=1)
    assert outcome == Outcome("nack", None, "ValidationError: order_id: Field required"), "nothing of the input"
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
