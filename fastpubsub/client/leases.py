"""Keeps what is being worked on: one request extends all leases of a subscription that are half over."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from fastpubsub.client import requests
from fastpubsub.client.clients import AsyncClient
from fastpubsub.client.deliveries import Delivery, lose
from fastpubsub.client.errors import BusError
from fastpubsub.client.exchange import Policy

logger = logging.getLogger("fastpubsub.client")

FIRST_SECONDS = 15.0
"""The first extension comes no later: until then only the clocks of two machines say how long the lease is."""

LEAST_SECONDS = 10
MOST_SECONDS = 43200
EARLIEST_SECONDS = 0.25
AGAIN_SECONDS = 1.0
POLICY = Policy(timeout=5, attempt_timeout=5)


@dataclass(slots=True)
class Held:
    delivery: Delivery
    seconds: int
    renew_at: float


class Leases:
    """`seconds` is how long each extension lasts; None: as long as the subscription's own deadline."""

    def __init__(self, client: AsyncClient, subscription_id: str, seconds: int | None = None) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._seconds = seconds
        self._held: dict[str, Held] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._extending: asyncio.Task[None] | None = None

    def hold(self, delivery: Delivery) -> None:
        if delivery.ack_id in self._held:
            return
        length = (delivery.lease_expires_at - datetime.now(UTC)).total_seconds()
        seconds = self._seconds or min(max(round(length), LEAST_SECONDS), MOST_SECONDS)
        wait = max(EARLIEST_SECONDS, min(length / 2, FIRST_SECONDS))
        renew_at = asyncio.get_running_loop().time() + wait
        self._held[delivery.ack_id] = Held(delivery, seconds, renew_at)
        self._wake_at(renew_at)

    def drop(self, delivery: Delivery) -> None:
        self._held.pop(delivery.ack_id, None)

    async def close(self) -> None:
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._extending is not None:
            self._extending.cancel()
            await asyncio.wait([self._extending])

    def _wake_at(self, time: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= time:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(time, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._extending is None:
            self._extending = asyncio.create_task(self._extend())

    async def _extend(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [held for held in self._held.values() if held.renew_at <= now + EARLIEST_SECONDS]
        if due:
            await self._extend_all(due)
        self._extending = None
        if self._held:
            self._wake_at(min(held.renew_at for held in self._held.values()))

    async def _extend_all(self, due: list[Held]) -> None:
        time = asyncio.get_running_loop().time
        seconds = max(held.seconds for held in due)
        ids = [held.delivery.ack_id for held in due]
        try:
            kept = await self._client.send(requests.extend(self._subscription_id, ids, seconds=seconds), POLICY)
        except BusError as error:
            logger.warning("leases could not be extended: subscription_id=%s error=%s", self._subscription_id, error)
            for held in due:
                held.renew_at = time() + AGAIN_SECONDS
            return
        still = set(kept)
        for held in due:
            held.renew_at = time() + seconds / 2
            if held.delivery.ack_id not in still and self._held.pop(held.delivery.ack_id, None) is not None:
                lose(held.delivery)
                logger.warning(
                    "a lease was lost while its message was worked on; another consumer may have it by now: "
                    "subscription_id=%s message_id=%s",
                    self._subscription_id,
                    held.delivery.id,
                )
