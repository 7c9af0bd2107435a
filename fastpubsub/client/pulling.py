"""Pulling for ever, through all trouble that passes."""

import asyncio
import logging
import random

from fastpubsub.client import requests
from fastpubsub.client.clients import AsyncClient
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
from fastpubsub.client.requests import MAX_WAIT_SECONDS

logger = logging.getLogger("fastpubsub.client")

MAX_BATCH = 100
IDLE_SECONDS = 1.0
"""Between pulls that were answered empty before their time, as by a server that is stopping."""

PASSING = (Unavailable, TooManyRequests, ServerError, ConnectionFailed, UnexpectedAnswer)
"""Worth trying again; a subscription that does not exist or a scope that is missing is not."""

ONCE = Policy(attempts=1)
"""Pulling repeats by itself, so that it can tell."""

AGAIN = Policy(backoff=0.2, max_backoff=10)


def _read(answer: bytes) -> list[Delivery]:
    return DeliveryList.model_validate_json(answer).data


class Puller:
    def __init__(self, client: AsyncClient, subscription_id: str, consumer_id: str | None = None) -> None:
        self._client = client
        self._subscription_id = subscription_id
        self._consumer_id = consumer_id
        self._failures = 0

    async def pull(self, batch_size: int) -> list[Delivery]:
        """Empty after a while without messages, or after a failure that was waited for."""
        time = asyncio.get_running_loop().time
        started = time()
        batch_size = min(batch_size, MAX_BATCH)
        request = requests.pull_with(_read, self._subscription_id, batch_size, MAX_WAIT_SECONDS, self._consumer_id)
        try:
            deliveries = await self._client.send(request, ONCE)
        except PASSING as error:
            await self._after(error)
            return []
        if self._failures:
            logger.info("messages can be pulled again: subscription_id=%s", self._subscription_id)
            self._failures = 0
        if not deliveries and time() - started < IDLE_SECONDS:
            await asyncio.sleep(random.uniform(IDLE_SECONDS / 2, IDLE_SECONDS))  # noqa: S311 - no secret
        return deliveries

    async def _after(self, error: BusError) -> None:
        if not self._failures:
            logger.warning(
                "no messages can be pulled; trying until it works: subscription_id=%s error=%s",
                self._subscription_id,
                error,
            )
        await asyncio.sleep(AGAIN.pause(self._failures, getattr(error, "retry_after", None)))
        self._failures += 1
