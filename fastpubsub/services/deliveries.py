"""Streams of a subscription: deliveries one after the other, as many in flight as the consumer wants."""

import asyncio
import logging
from collections.abc import AsyncGenerator

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.services.claiming import Claim, Claiming
from fastpubsub.services.consumers import Consumers
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.in_flight import FIRST_CHECK_SECONDS, LAST_CHECK_SECONDS, StreamHolder
from fastpubsub.services.settling import Settling
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

CLAIM_MESSAGES = 25
"""At most at once, so that a burst is shared among the streams that wait."""


class StreamedClaim:
    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.is_sent = False
        """Whether a byte of it was handed to the transport."""


class Deliveries:
    def __init__(self, database: Database, claiming: Claiming, settling: Settling, consumers: Consumers) -> None:
        self._database = database
        self._claiming = claiming
        self._settling = settling
        self._consumers = consumers
        self._ending = Tasks()

    async def close(self) -> None:
        await self._ending.finish()

    async def stream(self, subscription_id: str, consumer_id: str, max_in_flight: int) -> AsyncGenerator[StreamedClaim]:
        """Ends when the server stops. What is not settled goes back when it is closed."""
        keys: SubscriptionKey | None = None
        holder = StreamHolder()
        is_all_taken = False
        stream = self._consumers.open_stream(subscription_id, consumer_id)
        try:
            while True:
                limit = min(await self._room(keys, holder, max_in_flight), CLAIM_MESSAGES)
                claim = await self._claiming.pull(subscription_id, limit, consumer_id, None, is_all_taken=is_all_taken)
                if not claim.positions:
                    return
                is_all_taken = claim.leaves_nothing(limit)
                if keys is not None and keys != claim.keys:
                    self._forget(keys, holder)
                keys = claim.keys
                delivery = StreamedClaim(claim)
                self._settling.in_flight.hold(keys, claim.positions, claim.token, holder)
                try:
                    yield delivery
                finally:
                    if not delivery.is_sent:
                        self._settling.in_flight.release(keys, claim.positions, holder)
                        self._claiming.give_back(claim)
        finally:
            self._consumers.close_stream(stream)
            if keys is not None and holder.tokens:
                tokens = dict(holder.tokens)
                self._forget(keys, holder)
                self._ending.start(self._hand_back(keys, subscription_id, tokens))

    async def _room(self, keys: SubscriptionKey | None, holder: StreamHolder, max_in_flight: int) -> int:
        while keys is not None and len(holder.tokens) >= max_in_flight:
            holder.freed.clear()
            try:
                async with asyncio.timeout(holder.patience):
                    await holder.freed.wait()
            except TimeoutError:
                await self._check(keys, holder)
        return max_in_flight - len(holder.tokens)

    async def _check(self, keys: SubscriptionKey, holder: StreamHolder) -> None:
        """Asks for deliveries that other processes settled: often while they do, and less and less often otherwise."""
        tokens = dict(holder.tokens)
        (held,) = await self._database.fetch_one(
            "held_leases", *keys, Array("int8", list(tokens)), Array("int8", list(tokens.values()))
        )
        gone = [position for position in tokens.keys() - set(held) if holder.tokens.get(position) == tokens[position]]
        holder.patience = FIRST_CHECK_SECONDS if gone else min(2 * holder.patience, LAST_CHECK_SECONDS)
        self._settling.in_flight.release(keys, gone, holder)

    def _forget(self, keys: SubscriptionKey, holder: StreamHolder) -> None:
        self._settling.in_flight.release(keys, list(holder.tokens), holder)

    async def _hand_back(self, keys: SubscriptionKey, subscription_id: str, tokens: dict[int, int]) -> None:
        """The consumer has seen them, so the attempt counts."""
        try:
            await self._settling.hand_back(keys, subscription_id, tokens)
        except FastpubsubError:
            logger.warning("messages of a stream could not be given back; they come again after their ack deadline")
