"""What the breakers of endpoints came to, written for people and metrics: nothing depends on it."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.models import PushStatus
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)


class BreakerState(NamedTuple):
    failures: int
    """In a row; 0 when it is closed."""

    next_try: float
    """By the clock of the loop."""

    reason: str


CLOSED = BreakerState(0, 0.0, "")


class Breakers:
    """The newest state of those that changed and are not written yet."""

    def __init__(self, database: Database, process: int) -> None:
        self._database = database
        self._process = process
        self._changed: dict[SubscriptionKey, BreakerState] = {}

    def note(self, keys: SubscriptionKey, state: BreakerState) -> None:
        self._changed[keys] = state

    async def write(self, now: float) -> None:
        taken, self._changed = self._changed, {}
        if not taken:
            return
        with Surviving(logger, "writing the state of breakers", logging.DEBUG):
            try:
                await self._database.fetch_one(
                    "record_breakers", self._process, *_columns(list(taken), list(taken.values()), now)
                )
            except FastpubsubError:
                self._changed = taken | self._changed
                raise


def _columns(keys: Sequence[SubscriptionKey], states: Sequence[BreakerState], now: float) -> tuple[Array, ...]:
    return (
        Array("int8", [one.topic_key for one in keys]),
        Array("int8", [one.subscription_key for one in keys]),
        Array("int4", [one.failures for one in states]),
        Array("float8", [max(one.next_try - now, 0.0) for one in states]),
        Array("text", [one.reason for one in states]),
    )


async def get_push_status(database: Database, directory: Directory, subscription_id: str) -> PushStatus:
    async def get(keys: SubscriptionKey) -> PushStatus:
        row = await database.fetch_one("get_push_status", *keys)
        is_held, failures, opened_at, next_try_at, is_due, last_failure, old_secret_expires_at = row
        return PushStatus(
            is_held=is_held,
            breaker="closed" if not failures else "half-open" if is_due else "open",
            failures=failures,
            breaker_opened_at=opened_at,
            next_try_at=next_try_at,
            last_failure=last_failure,
            old_secret_expires_at=old_secret_expires_at,
        )

    return await directory.subscriptions.use(subscription_id, get)
