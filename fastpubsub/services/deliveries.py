"""Streams of a subscription: deliveries one after the other, as many in flight as the consumer wants."""

import asyncio
import logging
from collections.abc import AsyncGenerator

from fastpubsub.arrays import Array
from fastpubsub.database import Database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.in_flight import FIRST_CHECK_SECONDS, LAST_CHECK_SECONDS, Holder
from fastpubsub.services.messages import Claim, Messages
from fastpubsub.services.waiting import Consumers

logger = logging.getLogger(__name__)

CLAIM_MESSAGES = 25
"""At most at once, so that a burst is shared among the streams that wait."""


class Delivery:
    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.is_sent = False
        """Whether a byte of it was handed to the transport."""


class Deliveries:
    def __init__(self, database: Database, messages: Messages, consumers: Consumers) -> None:
        self._database = database
        self._messages = messages
        self._consumers = consumers
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        while self._ending:
            await asyncio.wait(self._ending)

    async def stream(self, subscription_id: str, consumer_id: str, max_in_flight: int) -> AsyncGenerator[Delivery]:
        """Ends when the server stops. What is not settled goes back when it is closed."""
        keys: SubscriptionKey | None = None
        holder = Holder()
        try:
            while True:
                limit = min(await self._room(keys, holder, max_in_flight), CLAIM_MESSAGES)
                claim = await self._consumers.pull(subscription_id, limit, consumer_id, None)
                if not claim.positions:
                    return
                if keys is not None and keys != claim.keys:
                    self._forget(keys, holder)
                keys = claim.keys
                delivery = Delivery(claim)
                self._messages.in_flight.hold(keys, claim.positions, claim.token, holder)
                try:
                    yield delivery
                finally:
                    if not delivery.is_sent:
                        self._messages.in_flight.release(keys, claim.positions, holder)
                        self._messages.give_back(claim)
        finally:
            if keys is not None and holder.tokens:
                tokens = dict(holder.tokens)
                self._forget(keys, holder)
                task = asyncio.create_task(self._hand_back(keys, subscription_id, tokens))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    async def _room(self, keys: SubscriptionKey | None, holder: Holder, max_in_flight: int) -> int:
        while keys is not None and len(holder.tokens) >= max_in_flight:
            holder.freed.clear()
            try:
                async with asyncio.timeout(holder.patience):
                    await holder.freed.wait()
            except TimeoutError:
                await self._check(keys, holder)
        return max_in_flight - len(holder.tokens)

    async def _check(self, keys: SubscriptionKey, holder: Holder) -> None:
        """What other processes have settled: asked often as long as they do, and less and less often otherwise."""
        tokens = dict(holder.tokens)
        (held,) = await self._database.fetch_one(
            "held_leases", *keys, Array("int8", list(tokens)), Array("int8", list(tokens.values()))
        )
        gone = [position for position in tokens.keys() - set(held) if holder.tokens.get(position) == tokens[position]]
        holder.patience = FIRST_CHECK_SECONDS if gone else min(2 * holder.patience, LAST_CHECK_SECONDS)
        self._messages.in_flight.release(keys, gone, holder)

    def _forget(self, keys: SubscriptionKey, holder: Holder) -> None:
        self._messages.in_flight.release(keys, list(holder.tokens), holder)

    async def _hand_back(self, keys: SubscriptionKey, subscription_id: str, tokens: dict[int, int]) -> None:
        """The consumer has seen them, so the attempt counts."""
        try:
            await self._messages.hand_back(keys, subscription_id, tokens)
        except FastpubsubError:
            logger.warning("messages of a stream could not be given back; they come again after their ack deadline")
