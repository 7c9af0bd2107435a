from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row

SEARCH_MILLISECONDS = 200
"""For all filters together, in one scrape."""

COUNTED_DELAYED = 1000
"""Delayed messages of a topic; more of them are estimated."""


@dataclass(frozen=True, slots=True)
class SubscriptionGauges:
    subscription_key: int
    subscription_id: str
    topic_id: str
    ahead: int
    waiting: int
    leased: int
    dead: int
    acked: int
    oldest_created_at: datetime | None
    """When the oldest message that waits for its first delivery was published."""
    oldest_leased_created_at: datetime | None
    oldest_waiting_created_at: datetime | None
    unjudged: int
    """Messages that the filter has still to judge, as long as `oldest_created_at` is not known because of them."""
    judged_filter: int | None
    judged_from: int | None
    judged_to: int | None
    kept_state: str | None
    """Of the oldest message that it needs, when that is older than the retention."""
    kept_bytes: int
    """Of its topic, beyond the retention."""
    is_paused: bool
    held_keys: int


class DelayedGauges(NamedTuple):
    """Of all topics. What is held was overdue when a server came back."""

    waiting: int
    held: int
    overdue_seconds: float


class PushGauges(NamedTuple):
    """Of a subscription that is pushed."""

    topic_id: str
    subscription_id: str
    is_open: bool
    """The breaker of its endpoint."""

    is_held: bool
    """By a process that lives."""


class ScheduleGauges(NamedTuple):
    """Of all topics. `failing`: those whose last time came without a message, because something is wrong."""

    active: int
    paused: int
    failing: int
    overdue_seconds: float


class Gauges:
    """Remembers how far each filter has judged its log, so that a scrape goes on where the last one ended."""

    def __init__(self, database: Database, limit: int, retention_seconds: int) -> None:
        self._database = database
        self._limit = limit
        self._retention = retention_seconds
        self._judged: list[SubscriptionGauges] = []

    async def look(self) -> list[SubscriptionGauges]:
        judged = self._judged
        known = await self._database.fetch_known(
            "list_subscription_metrics_2",
            self._limit,
            self._retention,
            Array("int8", [one.subscription_key for one in judged]),
            Array("int8", [one.judged_filter for one in judged]),
            Array("int8", [one.judged_from for one in judged]),
            Array("int8", [one.judged_to for one in judged]),
            SEARCH_MILLISECONDS,
            None,
        )
        found = gauges(known.rows)
        self._judged = [one for one in found if one.judged_filter is not None]
        return found


async def delayed_gauges(database: Database) -> DelayedGauges:
    by_topic = await database.is_spread()
    known = await database.fetch_known("inspect_delayed", COUNTED_DELAYED, None, by_topic)
    return DelayedGauges(*known.rows[0])


async def push_gauges(database: Database, limit: int) -> list[PushGauges]:
    return [PushGauges(*row) for row in await database.fetch_all("list_push_metrics", limit)]


async def schedule_gauges(database: Database) -> ScheduleGauges:
    known = await database.fetch_known("inspect_schedules", None)
    return ScheduleGauges(*known.rows[0])


def gauges(rows: list[Row]) -> list[SubscriptionGauges]:
    return [SubscriptionGauges(*row) for row in rows]


async def published_totals(database: Database, limit: int) -> list[tuple[str, int]]:
    """Topic ids with the number of messages that were ever published to them."""
    return [(topic_id, published) for topic_id, published in await database.fetch_all("list_topic_metrics", limit)]
