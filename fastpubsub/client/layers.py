"""What stands around a handler: middlewares, a time limit, dependencies, and the publishing of what it returns."""

import asyncio
import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, get_type_hints

from fastpubsub.client import requests
from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import Delivery
from fastpubsub.client.dependencies import Solve
from fastpubsub.client.options import Once
from fastpubsub.client.signatures import annotated, is_message, item_of
from fastpubsub.client.threads import Threads
from fastpubsub.client.topics import AnyTopic

logger = logging.getLogger("fastpubsub.client")


Deliveries: TypeAlias = Delivery | list[Delivery]


@dataclass(slots=True)
class Work:
    """A delivery that is worked on, or a batch: then both are lists."""

    payload: Any
    delivery: Any
    threads: Threads | None
    values: dict[str, Any] = field(default_factory=dict)
    """Of dependencies, by the names of the arguments."""


Call: TypeAlias = Callable[[Work], Awaitable[Any]]

Middleware: TypeAlias = Callable[[Any, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""`async def middleware(message, call_next)`: returns what `await call_next()` returns. A batch is a list."""


class TimeLimit(TimeoutError):
    """A handler took longer than its `timeout_seconds`."""


def limited(call: Call, seconds: float) -> Call:
    async def run(work: Work) -> Any:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call(work)
        except TimeoutError:
            if limit.expired():
                raise TimeLimit(f"took longer than {seconds:g} seconds, and was cancelled") from None
            raise

    return run


SESSION = "fastpubsub_session"
"""The name of the argument that nobody has: what `once` remembers with."""


def with_dependencies(call: Call, solve: Solve, once: Once | None = None) -> Call:
    """Closes them when the handler has ended, before its message is settled: what fails to commit comes again."""

    async def run(work: Work) -> Any:
        async with AsyncExitStack() as stack:
            work.values = await solve(work.delivery, stack)
            if once is not None and not await _leave_out_done(once, work):
                return None
            return await call(work)

    return run


async def _leave_out_done(once: Once, work: Work) -> bool:
    """Whether something is left to do."""
    session = work.values.pop(SESSION)
    if not isinstance(work.delivery, list):
        return await _is_first(once, session, work.delivery)
    # By id, so that two batches with the same messages wait for each other in one direction alone.
    several = sorted(work.delivery, key=lambda one: one.id)
    first = {one.ack_id for one in several if await _is_first(once, session, one)}
    left = [pair for pair in zip(work.payload, work.delivery, strict=True) if pair[1].ack_id in first]
    work.payload, work.delivery = [payload for payload, _ in left], [one for _, one in left]
    return bool(left)


async def _is_first(once: Once, session: Any, delivery: Delivery) -> bool:
    is_first = await once.is_first(session, delivery)
    if not is_first:
        told = "a message was done before: subscription_id=%s message_id=%s"
        logger.info(told, delivery.subscription_id, delivery.id)
    return is_first


def publishing(call: Call, connection: AsyncConnection, topic: AnyTopic) -> Call:
    """Publishes before the message is settled, so that no result is lost; the same result of the same message once."""

    async def run(work: Work) -> Any:
        result = await call(work)
        if result is not None:
            payloads = result if isinstance(result, list) else [result]
            # With a key, so that it carries no trace, which is another one at each attempt.
            request = requests.publish(topic, *payloads, idempotency_key="")
            digest = hashlib.sha256(request.content or b"").hexdigest()[:32]
            key = f"{work.delivery.subscription_id}:{work.delivery.id}:{digest}"
            await connection.send(requests.publish(topic, *payloads, idempotency_key=key))
        return result

    return run


def check_middlewares(name: str, middlewares: Sequence[Middleware], *, is_batch: bool) -> None:
    """A middleware gets what the handler gets: the message, or the list of them."""
    for middleware in middlewares:
        annotation = _first_annotation(middleware)
        if (is_message(annotation) and is_batch) or (item_of(annotation) is not None and not is_batch):
            takes = "batches" if is_batch else "one message"
            raise TypeError(
                f"{name} takes {takes}, and the middleware {getattr(middleware, '__qualname__', middleware)} does not: "
                "annotate its argument with Message | list[Message] for both"
            )


def _first_annotation(middleware: Middleware) -> Any:
    try:
        first = next(iter(inspect.signature(middleware).parameters), "")
        return get_type_hints(annotated(middleware)).get(first)
    except (NameError, AttributeError, SyntaxError, TypeError, ValueError):  # of names that only a type checker knows
        return None


def within(call: Call, middlewares: Sequence[Middleware]) -> Call:
    """The first one is the outermost."""
    for middleware in reversed(middlewares):
        call = _within(call, middleware)
    return call


def _within(call: Call, middleware: Middleware) -> Call:
    def run(work: Work) -> Awaitable[Any]:
        return middleware(work.delivery, partial(call, work))

    return run
