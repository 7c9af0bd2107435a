"""The background jobs of every server; the cleanup commands run them once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import NotFound
from fastpubsub.services.changes import trim_changes
from fastpubsub.services.consumers import trim_consumers
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.expiry import expire_subscriptions
from fastpubsub.services.history import trim_history
from fastpubsub.services.push_attempts import trim_push_attempts
from fastpubsub.services.pushing import trim_dispatchers
from fastpubsub.services.refused import trim_refused
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.turn import Turn
from fastpubsub.services.wakeups import Wakeups

logger = logging.getLogger(__name__)

_EXPIRY_CHUNK = 1000
_TRIM_CHUNK = 5000
_DROP_ROUNDS = 100
# A lease becomes visible at most a call's time after its deadline was set: so far back a pass looks again.
_LOOK_BACK_MARGIN_SECONDS = 15.0
_FULL_PASS_SECONDS = 60.0
_UNUSED_PASS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Released:
    released: int
    dead: int


async def release_expired_leases(
    database: Database,
    look_back_seconds: float | None = None,
    *,
    wait: bool = True,
    counters: Counters | None = None,
    wakeups: Wakeups | None = None,
) -> Released:
    """Ends the leases past their deadline, subscription by subscription, so that a bad row stops nobody else.

    `look_back_seconds`: older deadlines were handled by an earlier pass. `wait`: for another process at the same job.
    """
    released = dead = 0
    expired_leases = await database.fetch_by_node("list_expired_leases", look_back_seconds, None)
    for topic_key, subscription_key, subscription_id, expired in expired_leases:
        left = expired
        while left > 0:
            ended, died = await database.fetch_one(
                "release_expired_leases", topic_key, subscription_key, look_back_seconds, _EXPIRY_CHUNK, wait
            )
            if not ended:
                break
            released += ended
            dead += died
            left -= ended
            if wakeups is not None:
                wakeups.changed(SubscriptionKey(topic_key, subscription_key))
            if counters is not None:
                counters.expired(subscription_id, ended)
                counters.dead_lettered(subscription_id, died)
    return Released(released, dead)


async def drop_backlogs(database: Database, counters: Counters | None = None) -> int:
    """Shortens the backlogs that are too long, in turns, so that a busy topic stops no other.

    Returns how many messages were dropped or became dead letters.
    """
    total = 0
    left = await database.fetch_by_node("list_full_subscriptions")
    for _ in range(_DROP_ROUNDS):
        longer = []
        for topic_key, subscription_key, subscription_id in left:
            gone, more = await _drop_backlog(database, topic_key, subscription_key, subscription_id, counters)
            total += gone
            if more:
                longer.append((topic_key, subscription_key, subscription_id))
        left = longer
    return total


async def _drop_backlog(
    database: Database, topic_key: int, subscription_key: int, subscription_id: str, counters: Counters | None
) -> tuple[int, bool]:
    """How many messages are gone, and whether there are more."""
    try:
        dropped, died, more = await database.fetch_one("drop_backlog", topic_key, subscription_key)
    except NotFound:
        return 0, False
    if counters is not None:
        counters.dropped(subscription_id, dropped)
        counters.dead_lettered(subscription_id, died)
    logger.info("a backlog was too long: subscription_id=%s dropped=%s dead=%s", subscription_id, dropped, died)
    return dropped + died, more


async def lift_stranded_retries(database: Database) -> int:
    """A net: messages that wait where no claim looks any more. Expected to find none."""
    lifted = 0
    for topic_key, subscription_key, subscription_id in await database.fetch_by_node("list_stranded_retries"):
        (rows,) = await database.fetch_one("lift_stranded_retries", topic_key, subscription_key)
        logger.error("stranded retries were lifted: subscription_id=%s lifted=%s", subscription_id, rows)
        lifted += rows
    return lifted


async def trim_messages(
    database: Database, older_than_seconds: int, *, window_seconds: int = 86400, wait: bool = True
) -> int:
    """Deletes what is settled everywhere and past the retention, and what deleting left; how many messages went."""
    trimmed = 0
    for (topic_key,) in await database.fetch_by_node("list_trimmable", older_than_seconds, window_seconds, None):
        while chunk := (await database.fetch_one("trim_messages", topic_key, older_than_seconds, _TRIM_CHUNK, wait))[0]:
            trimmed += chunk
        while (await database.fetch_one("trim_claims", topic_key, window_seconds, _TRIM_CHUNK))[0] >= _TRIM_CHUNK:
            pass
    while (await database.fetch_known("empty_purges", _TRIM_CHUNK)).rows[0][0] is not None:
        pass
    return trimmed


class Maintenance:
    """The work of the process whose turn it is; several do no harm."""

    def __init__(
        self, database: Database, settings: Settings, counters: Counters, wakeups: Wakeups, turn: Turn
    ) -> None:
        self._database = database
        self._turn = turn
        self._wakeups = wakeups
        self._settings = settings
        self._counters = counters
        self._last_pass: float | None = None
        self._last_full_pass: float | None = None

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_repeat(self._expire, self._settings.lease_expiry_interval_seconds, self._turn))
            group.create_task(_repeat(self._drop, self._settings.lease_expiry_interval_seconds, self._turn))
            group.create_task(_repeat(self._trim, self._settings.trim_interval_seconds, self._turn))
            group.create_task(_repeat(self._expire_subscriptions, _UNUSED_PASS_SECONDS, self._turn))

    async def _expire(self) -> None:
        started = time.monotonic()
        look_back = None
        if self._last_full_pass is None or started - self._last_full_pass > _FULL_PASS_SECONDS:
            await lift_stranded_retries(self._database)
        elif self._last_pass is not None:
            look_back = started - self._last_pass + _LOOK_BACK_MARGIN_SECONDS
        await release_expired_leases(
            self._database, look_back, wait=False, counters=self._counters, wakeups=self._wakeups
        )
        self._last_pass = started
        if look_back is None:
            self._last_full_pass = started

    async def _drop(self) -> None:
        await drop_backlogs(self._database, self._counters)

    async def _expire_subscriptions(self) -> None:
        await expire_subscriptions(self._database)

    async def _trim(self) -> None:
        await trim_messages(
            self._database,
            self._settings.cleanup_acked_messages_older_than_seconds,
            window_seconds=self._settings.idempotency_window_seconds,
            wait=False,
        )
        if trimmed := await trim_refused(self._database, self._settings.refused_retention_seconds):
            logger.warning("messages that were refused long ago are deleted: count=%s", trimmed)
        await trim_changes(self._database, self._settings.audit_retention_seconds)
        await trim_history(self._database)
        await trim_consumers(self._database)
        await trim_dispatchers(self._database)
        await trim_push_attempts(self._database, self._settings.push_attempts_retention_seconds)


async def _repeat(job: Callable[[], Awaitable[None]], seconds: float, turn: Turn) -> None:
    """A failure is logged and never ends the loop."""
    while True:
        await turn.held()
        with Surviving(logger, "a background job"):
            await job()
        await asyncio.sleep(seconds)
