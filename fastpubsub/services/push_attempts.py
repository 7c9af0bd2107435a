"""What became of pushes: written in batches, read again, and deleted after a while."""

import logging
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from fastpubsub import message_ids
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import PushAttempt
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)

MAX_PENDING = 20_000
"""That wait to be written; older ones are forgotten."""

WRITTEN_AT_ONCE = 1000


class Attempt(NamedTuple):
    """`ended` is the time of the loop."""

    keys: SubscriptionKey
    position: int
    created_at: datetime
    ended: float
    attempt: int
    outcome: str
    status: int | None
    milliseconds: int
    said: str


class PushAttempts:
    """Those of this process that are not written yet."""

    def __init__(self, database: Database, retention_seconds: int) -> None:
        """With 0 nothing is kept."""
        self._database = database
        self._pending: deque[Attempt] = deque(maxlen=MAX_PENDING if retention_seconds else 0)

    def add(self, attempt: Attempt) -> None:
        self._pending.append(attempt)

    async def write(self, now: float) -> None:
        """What cannot be written is lost: it is for people to read, and nothing depends on it."""
        while self._pending:
            taken = [self._pending.popleft() for _ in range(min(len(self._pending), WRITTEN_AT_ONCE))]
            with Surviving(logger, "writing what became of pushes", logging.DEBUG):
                await self._database.fetch_one("record_push_attempts", *_columns(taken, now))


def _columns(attempts: Sequence[Attempt], now: float) -> tuple[Array, ...]:
    return (
        Array("int8", [one.keys.topic_key for one in attempts]),
        Array("int8", [one.keys.subscription_key for one in attempts]),
        Array("int8", [one.position for one in attempts]),
        Array("timestamptz", [one.created_at for one in attempts]),
        Array("float8", [now - one.ended for one in attempts]),
        Array("int4", [one.attempt for one in attempts]),
        Array("text", [one.outcome for one in attempts]),
        Array("int4", [one.status for one in attempts]),
        Array("int4", [one.milliseconds for one in attempts]),
        Array("text", [one.said for one in attempts]),
    )


async def list_push_attempts(
    database: Database,
    directory: Directory,
    subscription_id: str,
    message_id: UUID | None,
    before: int | None,
    limit: int,
) -> list[tuple[int, PushAttempt]]:
    """Newest first, each with the number that goes before it."""
    message = None if message_id is None else message_ids.parse(str(message_id))

    async def list_(keys: SubscriptionKey) -> list[tuple[int, PushAttempt]]:
        position = None if message_id is None else 0
        if message is not None and message.topic_key == keys.topic_key:
            position = message.position
        rows = await database.fetch_all("list_push_attempts", *keys, position, before, limit)
        return [(number, _attempt(keys, *rest)) for number, *rest in rows]

    return await directory.subscriptions.use(subscription_id, list_)


def _attempt(
    keys: SubscriptionKey, position: int, created_at: datetime, pushed_at: datetime, *rest: object
) -> PushAttempt:
    attempt, outcome, status, milliseconds, said = rest
    return PushAttempt.model_validate(
        {
            "message_id": MessageIds(keys.topic_key, created_at).at(position),
            "at": pushed_at,
            "attempt": attempt,
            "outcome": outcome,
            "status": status,
            "milliseconds": milliseconds,
            "said": said,
        }
    )


async def trim_push_attempts(database: Database, retention_seconds: int) -> None:
    while (await database.fetch_one("trim_push_attempts", retention_seconds))[0]:
        pass
