"""Settling in batches, without a timer."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.deliveries import Delivery, Outcome
from fastpubsub.client.errors import BusError

logger = logging.getLogger("fastpubsub.client")

MAX_IDS = 1000


class Settler:
    """Settles in the background: while one request is on its way, the next batch gathers."""

    def __init__(
        self, client: AsyncClient, subscription_id: str, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._on_progress = on_progress
        self._waiting: dict[Outcome, deque[str]] = {}
        self._sending: asyncio.Task[None] | None = None
        self.pending = 0

    def add(self, delivery: Delivery, outcome: Outcome) -> None:
        self._waiting.setdefault(outcome, deque()).append(delivery.ack_id)
        self.pending += 1
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def flush(self, seconds: float | None = None) -> None:
        """At most for so long."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=seconds)

    async def _send(self) -> None:
        try:
            while self._waiting:
                outcome, waiting = next(iter(self._waiting.items()))
                ids = [waiting.popleft() for _ in range(min(len(waiting), MAX_IDS))]
                if not waiting:
                    del self._waiting[outcome]
                await self.settle(outcome, ids)
                self.pending -= len(ids)
                self._on_progress()
        finally:
            self._sending = None

    async def settle(self, outcome: Outcome, ids: list[str]) -> None:
        try:
            settled = await self._client.send(outcome.request(self._subscription_id, ids))
        except BusError as error:
            logger.error(  # noqa: TRY400 - the sentence says it all
                "%d messages could not be settled and come again: subscription_id=%s outcome=%s error=%s",
                len(ids),
                self._subscription_id,
                outcome.kind,
                error,
            )
            return
        if late := len(settled.gone) + len(settled.stale):
            logger.warning(
                "%d messages were not held any more when they were settled: subscription_id=%s outcome=%s",
                late,
                self._subscription_id,
                outcome.kind,
            )
