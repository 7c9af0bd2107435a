"""Settles in batches: with the next pull if there is one, and otherwise in requests of its own."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import Delivery, Outcome
from fastpubsub.client.errors import TooLarge
from fastpubsub.models import Settled

logger = logging.getLogger("fastpubsub.client")

MAX_IDS = 1000
"""Of one request, as servers take them unless FASTPUBSUB_SETTLE_MAX_IDS says otherwise."""

GATHER_SECONDS = 0.005
"""How long an outcome waits for others, or for the next pull, while no request that settles is on its way."""

Outcomes: TypeAlias = dict[Outcome, deque[str]]


class Settler:
    """Settles in the background: while one request is on its way, the next batch gathers."""

    def __init__(
        self, client: AsyncConnection, subscription_id: str, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._on_progress = on_progress
        self._waiting: Outcomes = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._carried = False
        self.pending = 0

    def add(self, delivery: Delivery, outcome: Outcome) -> None:
        ids = self._waiting.get(outcome)
        if ids is None:
            ids = self._waiting[outcome] = deque()
        ids.append(delivery.ack_id)
        self.pending += 1
        if self._timer is None:
            self._arm()

    async def flush(self, seconds: float | None = None) -> None:
        """Sends what waits, and waits at most for so long."""
        self._start()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=seconds)

    def take(self, *, answered_soon: bool) -> Outcomes:
        """For a pull, which `settled` or `put_back` ends. Until then the next gather, if it is answered soon."""
        if self.pending > MAX_IDS:
            return {}
        taken, self._waiting = self._waiting, {}
        self._carried = answered_soon and bool(taken)
        self._disarm()
        return taken

    def settled(self, taken: Outcomes, answers: Mapping[str, Settled | None]) -> None:
        self._carried = False
        self.pending -= sum(map(len, taken.values()))
        for kind, settled in answers.items():
            if settled is not None:
                self._tell_late(kind, settled)
        self._arm()

    def put_back(self, taken: Outcomes) -> None:
        """Nobody knows what became of them: they are settled again, in requests of their own."""
        self._carried = False
        for outcome, ids in taken.items():
            self._waiting.setdefault(outcome, deque()).extendleft(reversed(ids))
        self._start()

    def _arm(self) -> None:
        if self._waiting and self._timer is None and self._sending is None and not self._carried:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._start)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._disarm()
        if self._waiting and self._sending is None:
            self._sending = asyncio.create_task(self._send())

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
        """Raises nothing; what a server takes fewer of is sent in halves."""
        try:
            settled = await self._client.send(outcome.request(self._subscription_id, ids))
        except Exception as error:  # noqa: BLE001 - it must not keep the next from being settled
            if isinstance(error, TooLarge) and len(ids) > 1:
                await self.settle(outcome, ids[: len(ids) // 2])
                await self.settle(outcome, ids[len(ids) // 2 :])
                return
            logger.error(  # noqa: TRY400 - the sentence says it all
                "%d messages could not be settled and come again: subscription_id=%s outcome=%s error=%s",
                len(ids),
                self._subscription_id,
                outcome.kind,
                error,
            )
            return
        self._tell_late(outcome.kind, settled)

    def _tell_late(self, kind: str, settled: Settled) -> None:
        if late := len(settled.gone) + len(settled.stale):
            logger.warning(
                "%d messages were no longer held when they were settled: subscription_id=%s outcome=%s",
                late,
                self._subscription_id,
                kind,
            )
