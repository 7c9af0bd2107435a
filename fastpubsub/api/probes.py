"""What probes and scrapes ask for; however often they come, the database is asked about once a second."""

import logging
from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from fastpubsub.api.cached import Cached
from fastpubsub.api.prometheus import render
from fastpubsub.config import Settings
from fastpubsub.database import Database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.services.metrics import SubscriptionGauges, subscription_gauges
from fastpubsub.services.readiness import DOWN, Readiness

logger = logging.getLogger(__name__)

CACHE_SECONDS = 1.0
READINESS_DEADLINE_SECONDS = 0.3
"""Readiness promises an answer within 500 ms."""

GAUGES_DEADLINE_SECONDS = 3.0
"""A scrape usually gives up after 10 s."""


class Probes:
    def __init__(self, settings: Settings, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._registry = registry
        self._max_subscriptions = settings.metrics_max_subscriptions
        self._readiness = Readiness(settings)
        self._problem: Cached[str | None] = Cached(
            self._readiness.problem, DOWN, seconds=CACHE_SECONDS, deadline=READINESS_DEADLINE_SECONDS
        )
        self._subscriptions: Cached[Sequence[SubscriptionGauges] | None] = Cached(
            self._read_subscriptions, None, seconds=CACHE_SECONDS, deadline=GAUGES_DEADLINE_SECONDS
        )

    async def close(self) -> None:
        await self._problem.close()
        await self._subscriptions.close()
        await self._readiness.close()

    async def problem(self) -> str | None:
        """Why this server should get no requests now."""
        return await self._problem.get()

    async def metrics(self) -> bytes:
        subscriptions = await self._subscriptions.get()
        return await run_in_threadpool(render, self._registry, subscriptions)

    async def _read_subscriptions(self) -> Sequence[SubscriptionGauges] | None:
        try:
            return await subscription_gauges(self._database, self._max_subscriptions)
        except FastpubsubError as error:
            logger.warning("no gauges of subscriptions in this scrape: %s", error.detail)
            return None
