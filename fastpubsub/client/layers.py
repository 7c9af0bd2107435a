"""What stands around a handler: middlewares, a time limit, dependencies, and the publishing of what it returns."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from fastpubsub.client import requests
from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import Delivery
from fastpubsub.client.dependencies import Solve
from fastpubsub.client.options import Once
from fastpubsub.client.threads import Threads
from fastpubsub.client.topics import AnyTopic

logger = logging.getLogger("fastpubsub.client")


@dataclass(slots=True)
class Work:
    """A delivery that is worked on."""

    payload: Any
    delivery: Delivery
    threads: Threads | None
    values: dict[str, Any] = field(default_factory=dict)
    """Of dependencies, by the names of the arguments."""


Call: TypeAlias = Callable[[Work], Awaitable[Any]]

Middleware: TypeAlias = Callable[[Any, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""`async def middleware(message, call_next)`: returns what `await call_next()` returns."""


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
            if once is not None and not await once.is_first(work.values.pop(SESSION), work.delivery):
                logger.info(
                    "a message was done before: subscription_id=%s message_id=%s",
                    work.delivery.subscription_id,
                    work.delivery.id,
                )
                return None
            return await call(work)

    return run


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


def within(call: Call, middlewares: Sequence[Middleware]) -> Call:
    """The first one is the outermost."""
    for middleware in reversed(middlewares):
        call = _within(call, middleware)
    return call


def _within(call: Call, middleware: Middleware) -> Call:
    def run(work: Work) -> Awaitable[Any]:
        return middleware(work.delivery, partial(call, work))

    return run
