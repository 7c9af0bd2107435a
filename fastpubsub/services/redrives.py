"""Reprocesses or purges the dead letters that match, at a rate: jobs that can be watched and cancelled."""

import asyncio
import logging
from typing import NamedTuple

from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import NotFound
from fastpubsub.models import DeadLetterReason, NewRedrive, Redrive
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.turn import Turn
from fastpubsub.services.wakeups import Wakeups

logger = logging.getLogger(__name__)

MAX_RUNNING = 10
"""Of a subscription."""
MAX_ENDED = 100
"""Of a subscription; older ones are forgotten."""
MAX_REASONS = 100

_STEP_LETTERS = 500
_STEP_SCAN = 5000
_STEP_SECONDS = 0.1
"""Between two steps at a rate, so that a high one does not make a step of each message."""
_LOOK_SECONDS = 5.0
"""Until the process whose turn it is goes on with what another one began."""


class StoredRedrive(NamedTuple):
    """`filter` is the JSON that somebody wrote: its numbers stay what they are."""

    redrive: Redrive
    filter: bytes | None


async def list_reasons(database: Database, directory: Directory, subscription_id: str) -> list[DeadLetterReason]:
    """The most frequent reasons of dead letters, at most 100."""

    async def list_(keys: SubscriptionKey) -> list[DeadLetterReason]:
        rows = await database.fetch_all("list_dead_letter_reasons", *keys, MAX_REASONS)
        return [
            DeadLetterReason(reason=reason, count=count, first_died_at=first, last_died_at=last)
            for reason, count, first, last in rows
        ]

    return await directory.subscriptions.use(subscription_id, list_)


async def create_redrive(
    database: Database,
    directory: Directory,
    subscription_id: str,
    new: NewRedrive,
    change: Change | None = None,
    filter_json: str | None = None,
) -> StoredRedrive:
    """`filter_json` is the filter as it was written."""

    async def create(keys: SubscriptionKey) -> StoredRedrive:
        return _redrive(
            subscription_id,
            await database.fetch_one(
                "create_redrive_2",
                *keys,
                new.action,
                new.reason,
                new.died_after,
                new.died_before,
                new.per_second,
                MAX_RUNNING,
                MAX_ENDED,
                None,
                filter_json,
                change=change,
            ),
        )

    return await directory.subscriptions.use(subscription_id, create)


async def list_redrives(database: Database, directory: Directory, subscription_id: str) -> list[StoredRedrive]:
    """Newest first."""

    async def list_(keys: SubscriptionKey) -> list[StoredRedrive]:
        return [_redrive(subscription_id, row) for row in await database.fetch_all("list_redrives_2", *keys)]

    return await directory.subscriptions.use(subscription_id, list_)


async def get_redrive(database: Database, directory: Directory, subscription_id: str, redrive_id: int) -> StoredRedrive:
    async def get(keys: SubscriptionKey) -> list[Row]:
        return await database.fetch_all("list_redrives_2", *keys, redrive_id)

    rows = await directory.subscriptions.use(subscription_id, get)
    if not rows:
        raise _unknown(subscription_id, redrive_id)
    return _redrive(subscription_id, rows[0])


async def cancel_redrive(
    database: Database, directory: Directory, subscription_id: str, redrive_id: int, change: Change | None = None
) -> None:
    """What it has moved stays moved."""

    async def cancel(keys: SubscriptionKey) -> bool:
        (found,) = await database.fetch_one("cancel_redrive", *keys, redrive_id, change=change)
        return bool(found)

    if not await directory.subscriptions.use(subscription_id, cancel):
        raise _unknown(subscription_id, redrive_id)


class Redrives:
    """Goes on with all that run. A step holds the cursor, so two processes share the rate."""

    def __init__(self, database: Database, wakeups: Wakeups, turn: Turn) -> None:
        self._database = database
        self._wakeups = wakeups
        self._turn = turn
        self._wanted = asyncio.Event()

    def look(self) -> None:
        """One has begun."""
        self._wanted.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            if self._wanted.is_set() or self._turn.holds:
                self._wanted.clear()
                with Surviving(logger, "a step of the redrives"):
                    await self._step_all()
            await self._until_wanted()

    async def _until_wanted(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _step_all(self) -> None:
        """One step of each in turn, until none runs."""
        while running := await self._database.fetch_by_node("list_running_redrives"):
            pauses = [
                await self._step(SubscriptionKey(topic_key, subscription_key), redrive_key)
                for topic_key, subscription_key, redrive_key in running
            ]
            await asyncio.sleep(min(pauses))

    async def _step(self, keys: SubscriptionKey, redrive_key: int) -> float:
        """Returns the seconds until the next."""
        try:
            moved, _, seconds = await self._database.fetch_one(
                "step_redrive", *keys, redrive_key, _STEP_LETTERS, _STEP_SCAN
            )
        except NotFound:
            return _STEP_SECONDS
        if moved:
            self._wakeups.changed(keys)
        return max(_STEP_SECONDS, min(seconds, 1.0)) if seconds else 0.0


def _redrive(subscription_id: str, row: Row) -> StoredRedrive:
    _, _, redrive_key, *rest, filter_json = row
    action, reason, died_after, died_before, per_second, matched, done, state, _, _, created_at, ended_at = rest
    redrive = Redrive(
        id=redrive_key,
        subscription_id=subscription_id,
        action=action,
        state=state,
        reason=reason,
        died_after=died_after,
        died_before=died_before,
        per_second=per_second,
        matched=matched,
        done=done,
        created_at=created_at,
        ended_at=ended_at,
    )
    return StoredRedrive(redrive, filter_json)


def _unknown(subscription_id: str, redrive_id: int) -> NotFound:
    return NotFound(f'subscription "{subscription_id}" has no redrive {redrive_id}')
