"""Pulls without end, through all errors that can pass."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from fastpubsub.client import requests
from fastpubsub.client.connections import ONCE, ONCE_MORE, AsyncConnection
from fastpubsub.client.deliveries import Delivery, DeliveryList
from fastpubsub.client.errors import (
    BusError,
    ConnectionFailed,
    ServerError,
    TooManyRequests,
    Unavailable,
    UnexpectedAnswer,
)
from fastpubsub.client.exchange import Policy
from fastpubsub.client.requests import MAX_WAIT_SECONDS, Settlement
from fastpubsub.client.settling import Outcomes, Settler

logger = logging.getLogger("fastpubsub.client")

MAX_BATCH = 100
IDLE_SECONDS = 1.0
"""Between pulls that were answered empty before their time, as by a server that is stopping."""

PASSING = (Unavailable, TooManyRequests, ServerError, ConnectionFailed, UnexpectedAnswer)
"""Worth trying again; a subscription that does not exist or a scope that is missing is not."""

LEAVE_SECONDS = 5.0
LEAVE_AGAIN_SECONDS = 0.25
LEAVING = Policy(timeout=1, attempt_timeout=1, attempts=1)
"""How long a consumer that stops waits for an answer that is on its way, and how often it says that it stops."""

AGAIN = Policy(backoff=0.2, max_backoff=10)
LONGEST_SECONDS = 300.0
"""A limit on `Retry-After`: an endless loop must not wait for a year."""


Read: TypeAlias = Callable[[bytes], DeliveryList]


def pause(failures: int, error: BusError | None) -> float:
    """Returns the seconds until the next try."""
    return AGAIN.pause(failures, min(getattr(error, "retry_after", None) or 0.0, LONGEST_SECONDS))


class Puller:
    def __init__(
        self,
        client: AsyncConnection,
        subscription_id: str,
        settler: Settler,
        consumer_id: str | None = None,
        on_answered: Callable[[], None] = lambda: None,
        read: Read = DeliveryList.model_validate_json,
    ) -> None:
        """`on_answered` is called after the start, and after failures."""
        self._on_answered = on_answered
        self._read = read
        self._client = client
        self._subscription_id = subscription_id
        self._settler = settler
        self._consumer_id = consumer_id
        self._failures = 0
        self.is_answered = False
        """Whether the last pull was. Until then no pull waits for messages: it is to be known at once that it works."""
        self.has_more = False
        """Whether the last answer was as large as it could be: then the next pull does not wait either."""
        self._is_paused = False
        self._left_alone: asyncio.Task[list[Delivery]] | None = None

    async def pull(self, batch_size: int) -> list[Delivery]:
        """Settles what waits, too. Empty after a while without messages, or after a failure that was waited for."""
        time = asyncio.get_running_loop().time
        started = time()
        batch_size = min(batch_size, MAX_BATCH)
        seconds = MAX_WAIT_SECONDS if self.is_answered and not self.has_more else 0
        self.has_more = False
        try:
            deliveries = await self._ask(batch_size, seconds)
        except PASSING as error:
            await self._after(error)
            return []
        self.has_more = len(deliveries) >= batch_size
        if self._failures:
            logger.info("messages can be pulled again: subscription_id=%s", self._subscription_id)
            self._failures = 0
        if not self.is_answered:
            self.is_answered = True
            self._on_answered()
        if seconds and not deliveries and time() - started < IDLE_SECONDS:
            await asyncio.sleep(random.uniform(IDLE_SECONDS / 2, IDLE_SECONDS))  # noqa: S311 - no secret
        return deliveries

    def _tell_pause(self, is_paused: bool) -> None:
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            change = "paused, and hands out nothing until it is resumed" if is_paused else "no longer paused"
            logger.info("the subscription is %s: subscription_id=%s", change, self._subscription_id)

    async def leave(self) -> list[Delivery]:
        """Waits for the answer to a cancelled pull; otherwise its messages would be lost until their deadline."""
        asking = self._left_alone
        if asking is None:
            return []
        until = asyncio.get_running_loop().time() + LEAVE_SECONDS
        while not asking.done() and (left := until - asyncio.get_running_loop().time()) > 0:
            with suppress(BusError):
                await self._client.send(requests.end_waits(self._subscription_id, self._consumer_id), LEAVING)
            await asyncio.wait([asking], timeout=min(left, LEAVE_AGAIN_SECONDS))
        asking.cancel()
        await asyncio.wait([asking])
        return [] if asking.cancelled() or asking.exception() else asking.result()

    async def _ask(self, batch_size: int, seconds: int) -> list[Delivery]:
        """Goes on when it is cancelled, until `leave()`."""
        asking = asyncio.create_task(self._exchange(batch_size, seconds))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._left_alone = asking
            raise

    async def _exchange(self, batch_size: int, seconds: int) -> list[Delivery]:
        taken = self._settler.take(answered_soon=not seconds)
        asked = (self._read, self._subscription_id, batch_size, seconds, self._consumer_id, _settlement(taken))
        try:
            pulled = await self._client.send(requests.pull_with(*asked), ONCE_MORE if self._failures else ONCE)
        except BaseException as error:
            self._settler.put_back(taken)
            if taken and isinstance(error, BusError) and not isinstance(error, PASSING):
                return []  # which of the two was refused is found out apart
            raise
        self._settler.settled(taken, {"ack": pulled.acks, "nack": pulled.nacks, "reject": pulled.rejects})
        self._tell_pause(pulled.paused)
        return pulled.data

    async def _after(self, error: BusError) -> None:
        self.is_answered = False
        if not self._failures:
            logger.warning(
                "no messages can be pulled; trying again until it works: subscription_id=%s error=%s",
                self._subscription_id,
                error,
            )
        await asyncio.sleep(pause(self._failures, error))
        self._failures += 1


def _settlement(outcomes: Outcomes) -> Settlement | None:
    if not outcomes:
        return None
    settlement = Settlement()
    for outcome, ids in outcomes.items():
        outcome.add_to(settlement, list(ids))
    return settlement
