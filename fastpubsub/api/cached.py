"""A value that many ask for and that is looked up once at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cached(Generic[Value]):
    """Looks up at most once in `seconds`; who asks waits at most `deadline` seconds and then gets `fallback`."""

    def __init__(
        self, look_up: Callable[[], Awaitable[Value]], fallback: Value, *, seconds: float, deadline: float
    ) -> None:
        self._look_up = look_up
        self._fallback = fallback
        self._seconds = seconds
        self._deadline = deadline
        self._started_at = 0.0
        self._known_at: float | None = None
        self._value = fallback
        self._task: asyncio.Task[None] | None = None

    async def get(self) -> Value:
        now = time.monotonic()
        if self._known_at is not None and now - self._known_at < self._seconds:
            return self._value
        if self._task is None:
            self._started_at = now
            self._task = asyncio.create_task(self._refresh())
        task = self._task
        # Who comes while a look-up hangs does not wait again for what others have waited for.
        await asyncio.wait({task}, timeout=max(self._started_at + self._deadline - now, 0))
        return self._value if task.done() else self._fallback

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _refresh(self) -> None:
        value = self._fallback
        try:
            value = await self._look_up()
        finally:
            self._value = value
            self._known_at = time.monotonic()
            self._task = None
