"""Keeps what is being worked on: one request extends all leases of a subscription that are half over."""

import asyncio
import logging

from fastpubsub.client import requests
from fastpubsub.client.connections import AsyncConnection
from fastpubsub.client.deliveries import Delivery, hold_of, lease_left
from fastpubsub.client.errors import BusError
from fastpubsub.client.exchange import Policy
from fastpubsub.client.settling import MAX_IDS

logger = logging.getLogger("fastpubsub.client")

FIRST_SECONDS = 15.0
"""The first extension comes no later: until then nobody knows how long the answer of the pull was on its way."""

LEAST_SECONDS = 10
EARLIEST_SECONDS = 0.25
AGAIN_SECONDS = 1.0
POLICY = Policy(timeout=5, attempt_timeout=5)


class Leases:
    """`seconds` is how long each extension lasts; None: as long as the subscription's own deadline."""

    def __init__(self, client: AsyncConnection, subscription_id: str, seconds: int | None = None) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._seconds = seconds
        self._held: dict[str, Delivery] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._extending: asyncio.Task[None] | None = None

    def hold(self, *deliveries: Delivery) -> None:
        """Of one pull, or one."""
        wait = max(EARLIEST_SECONDS, min(min(map(lease_left, deliveries)) / 2, FIRST_SECONDS))
        renew_at = asyncio.get_running_loop().time() + wait
        for delivery in deliveries:
            if self._held.setdefault(delivery.ack_id, delivery) is delivery:
                hold_of(delivery).renew_at = renew_at
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
        soon = asyncio.get_running_loop().time() + EARLIEST_SECONDS
        due = [delivery for delivery in self._held.values() if hold_of(delivery).renew_at <= soon]
        for first in range(0, len(due), MAX_IDS):
            await self._extend_all(due[first : first + MAX_IDS])
        self._extending = None
        if self._held:
            self._wake_at(min(hold_of(delivery).renew_at for delivery in self._held.values()))

    def _extension(self, due: list[Delivery]) -> int:
        return self._seconds or max(LEAST_SECONDS, *(delivery.lease_seconds for delivery in due))

    async def _extend_all(self, due: list[Delivery]) -> None:
        time = asyncio.get_running_loop().time
        seconds = self._extension(due)
        ids = [delivery.ack_id for delivery in due]
        begun = time()
        try:
            kept = await self._client.send(requests.extend(self._subscription_id, ids, seconds=seconds), POLICY)
        except BusError as error:
            logger.warning("leases could not be extended: subscription_id=%s error=%s", self._subscription_id, error)
            for delivery in due:
                hold_of(delivery).renew_at = time() + AGAIN_SECONDS
            return
        still = set(kept)
        for delivery in due:
            hold = hold_of(delivery)
            hold.renew_at = begun + seconds / 2
            hold.lease_ends_at = begun + seconds
            if delivery.ack_id not in still and self._held.pop(delivery.ack_id, None) is not None:
                if hold.in_transaction is not None:  # which has committed
                    continue
                hold.is_lost = True
                logger.warning(
                    "a lease was lost while its message was processed; another consumer may hold it by now: "
                    "subscription_id=%s message_id=%s",
                    self._subscription_id,
                    delivery.id,
                )
