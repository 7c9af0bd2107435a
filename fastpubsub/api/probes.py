"""Answers probes and scrapes; however often they come, it asks the database about once a second."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from fastpubsub.api.prometheus import Read, render
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.services.metrics import Gauges, delayed_gauges, push_gauges, schedule_gauges
from fastpubsub.services.readiness import DOWN, Readiness
from fastpubsub.services.refused import count_refused

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

CACHE_SECONDS = 1.0
READINESS_DEADLINE_SECONDS = 0.3
"""Readiness promises an answer within 500 ms."""

GAUGES_DEADLINE_SECONDS = 3.0
"""A scrape usually gives up after 10 s."""


class Cached(Generic[Value]):
    """Looks up at most once in `seconds`; a caller waits at most `deadline` seconds and then gets `fallback`."""

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
        # A caller that comes while a look-up hangs does not wait for it a second time.
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


class Probes:
    def __init__(self, settings: Settings, database: Database, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges = Gauges(
            database, settings.metrics_max_subscriptions, settings.cleanup_acked_messages_older_than_seconds
        )
        self._readiness = Readiness(settings)
        self._problem: Cached[str | None] = Cached(
            self._readiness.problem, DOWN, seconds=CACHE_SECONDS, deadline=READINESS_DEADLINE_SECONDS
        )
        self._database = database
        self._limit = settings.metrics_max_subscriptions
        self._read: Cached[Read | None] = Cached(
            self._read_gauges, None, seconds=CACHE_SECONDS, deadline=GAUGES_DEADLINE_SECONDS
        )

    async def close(self) -> None:
        await self._problem.close()
        await self._read.close()
        await self._readiness.close()

    async def problem(self) -> str | None:
        """Why this server should get no requests now."""
        return await self._problem.get()

    async def metrics(self) -> bytes:
        return await run_in_threadpool(render, self._registry, await self._read.get())

    async def _read_gauges(self) -> Read | None:
        try:
            return Read(
                await self._gauges.look(),
                await delayed_gauges(self._database),
                await push_gauges(self._database, self._limit),
                await schedule_gauges(self._database),
                await count_refused(self._database, self._limit),
                await self._database.count_missing_topics(),
            )
        except FastpubsubError as error:
            logger.warning("no gauges of the database in this scrape: %s", error.detail)
            return None
