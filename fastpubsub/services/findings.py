"""What somebody should look at: in what the subscriptions have to do, and against what was usual before."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.models import Finding, FindingKind
from fastpubsub.services.subscriptions import rate_text

MAX_FINDINGS = 100
STUCK = timedelta(hours=1)
"""After which the alerts call a message stuck that is leased or waiting."""

RELEASED = timedelta(minutes=1)
"""In which a server releases an expired lease, which it does every second."""

BEHIND = timedelta(seconds=15)
"""A subscription whose next message is younger is not looked at for a growing backlog."""

MAX_FLOWS = 500
"""Subscriptions that are looked at for it: those with the most messages."""

FLOW_SECONDS = 300
GROWTH = 0.05
"""Of what came: less is what processes write late."""

SILENT = timedelta(minutes=5)
"""Of consumers, although a message has been ahead for as long."""

QUIET = timedelta(minutes=10)
"""Of publishers."""

MAX_RHYTHMS = 25
"""Topics that fell silent last, and subscriptions with the most messages, whose past day is looked at."""

HELD = timedelta(minutes=5)
"""Of a transaction of anybody, in which vacuum removes nothing; `fastpubsub doctor` says whose it is."""

MANY_MINUTES = 10
"""In which something must have happened before silence means something."""

MINUTES_OF_A_WORD = 120
"""From which on it is told in hours."""

PINNED = timedelta(hours=1)
"""Beyond the retention."""

ORDER: Sequence[FindingKind] = (
    "expired_leases",
    "consumers_silent",
    "backlog_grows",
    "old_backlog",
    "old_lease",
    "old_waiting",
    "dead_letters",
    "pins_the_log",
    "held_snapshot",
    "publishers_silent",
    "paused",
    "at_limit",
)
"""The worst first."""


class Load(NamedTuple):
    """A subscription that has something to do; `behind` also counts what its filter will keep out."""

    topic_id: str
    subscription_id: str
    is_filtered: bool
    behind: int
    leased: int
    waiting: int
    dead: int
    next_created_at: datetime | None
    leased_created_at: datetime | None
    waiting_created_at: datetime | None
    died_at: datetime | None
    retention_seconds: int
    paused_at: datetime | None = None
    first_expires_at: datetime | None = None
    max_in_flight: int | None = None
    at_rate_limit: float | None = None

    @property
    def limit_reached(self) -> str | None:
        if self.max_in_flight is not None and self.leased >= self.max_in_flight:
            return f"consumers hold {self.leased:,} messages, as many as its limit lets them"
        if self.at_rate_limit is not None:
            rate = rate_text(self.at_rate_limit)
            return f"consumers get {rate} messages a second, as many as its limit lets them"
        return None

    def finding(self, kind: FindingKind, detail: str, since: datetime | None) -> Finding:
        return Finding(
            kind=kind,
            severity="error" if kind == "expired_leases" else "warning",
            topic_id=self.topic_id,
            subscription_id=self.subscription_id,
            detail=detail,
            since=since,
        )


def worst(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda one: (ORDER.index(one.kind), one.since or datetime.max.replace(tzinfo=UTC)))[
        :MAX_FINDINGS
    ]


def findings(load: Load, now: datetime) -> Iterator[Finding]:
    if is_before(load.first_expires_at, now - RELEASED):
        detail = "a lease has expired and is not released, so its messages are not delivered again"
        yield load.finding("expired_leases", detail, load.first_expires_at)
    yield from _ahead(load, now)
    if is_before(load.leased_created_at, now - STUCK):
        detail = "a consumer still holds a message that was published more than an hour ago"
        yield load.finding("old_lease", detail, load.leased_created_at)
    if is_before(load.waiting_created_at, now - STUCK):
        detail = "a message that was published more than an hour ago still waits for a retry"
        yield load.finding("old_waiting", detail, load.waiting_created_at)
    if load.dead:
        yield load.finding("dead_letters", f"dead letters: {load.dead:,}", load.died_at)
    oldest = min(filter(None, (load.next_created_at, load.leased_created_at, load.waiting_created_at)), default=None)
    if is_before(oldest, now - timedelta(seconds=load.retention_seconds) - PINNED):
        detail = "the topic keeps messages beyond its retention, because this subscription still needs them"
        yield load.finding("pins_the_log", detail, oldest)


def _ahead(load: Load, now: datetime) -> Iterator[Finding]:
    if load.paused_at is not None:
        yield load.finding("paused", "it is paused: consumers get nothing until it is resumed", load.paused_at)
    elif is_before(load.next_created_at, now - STUCK):
        detail = "its consumers have not got to a message that was published more than an hour ago"
        yield load.finding("old_backlog", detail, load.next_created_at)
    if load.limit_reached is not None and is_before(load.next_created_at, now - BEHIND):
        yield load.finding("at_limit", f"{load.limit_reached}, and others are ahead", None)


async def held(database: Database, now: datetime) -> list[Finding]:
    """A transaction that keeps vacuum from its work. It is of no topic, and for those who may see all."""
    (since,) = await database.fetch_one("oldest_transaction")
    if not is_before(since, now - HELD):
        return []
    detail = "a transaction stays open, so vacuum removes no deleted rows; `fastpubsub doctor` says whose it is"
    return [
        Finding(
            kind="held_snapshot", severity="warning", topic_id=None, subscription_id=None, detail=detail, since=since
        )
    ]


async def growing(database: Database, loads: Iterable[Load], now: datetime) -> list[Finding]:
    """Of those that are not paused: more came than was delivered, in both halves of the last five minutes."""
    behind = [load for load in loads if load.paused_at is None and is_before(load.next_created_at, now - BEHIND)]
    most = {load.subscription_id: load for load in sorted(behind, key=lambda load: -load.behind)[:MAX_FLOWS]}
    if not most:
        return []
    flows = [Flow(*row) for row in await database.fetch_all("list_flows", list(most), FLOW_SECONDS)]
    return [
        most[flow.subscription_id].finding("backlog_grows", flow.detail, None)
        for flow in flows
        if flow.grows and most[flow.subscription_id].behind >= flow.growth
    ]


class Flow(NamedTuple):
    """What came to a subscription, and what was delivered or filtered out, in two halves of a time."""

    subscription_id: str
    came_before: int
    went_before: int
    came: int
    went: int

    @property
    def growth(self) -> int:
        return self.came_before + self.came - self.went_before - self.went

    @property
    def grows(self) -> bool:
        halves = (self.came_before, self.went_before), (self.came, self.went)
        return all(came - went > came * GROWTH for came, went in halves)

    @property
    def detail(self) -> str:
        came, went = self.came_before + self.came, self.went_before + self.went
        return f"in {FLOW_SECONDS // 60} minutes {came:,} messages came, and {went:,} were delivered or filtered out"


async def silent(
    database: Database,
    topic_ids: list[str] | None,
    loads: Iterable[Load],
    now: datetime,
    published_at: Mapping[int, datetime] | None = None,
) -> list[Finding]:
    """Consumers, although messages are ahead, and publishers, each against the day before they fell silent.

    `published_at`: by the keys of topics, when it is known.
    """
    idle = [load for load in loads if load.paused_at is None and is_before(load.next_created_at, now - SILENT)]
    most = {load.subscription_id: load for load in sorted(idle, key=lambda load: -load.behind)[:MAX_RHYTHMS]}
    seconds, consumer_seconds = int(QUIET.total_seconds()), int(SILENT.total_seconds())
    arguments = topic_ids, list(most), seconds, MAX_RHYTHMS, consumer_seconds, None, False
    if published_at is None:
        rows = await database.fetch_all("list_rhythms", *arguments)
    else:
        keys, times = list(published_at), list(published_at.values())
        rows = await database.fetch_all("list_rhythms", *arguments, Array("int8", keys), Array("timestamptz", times))
    return [rhythm.finding(now) for rhythm in (Rhythm(*row) for row in rows) if rhythm.has_stopped(now)]


class Rhythm(NamedTuple):
    """In how many minutes of a day something happened, how long that lasted, and with which pause at most."""

    topic_id: str
    subscription_id: str | None
    minutes: int
    lasted_seconds: int
    longest_pause_seconds: int
    silent_since: datetime

    def has_stopped(self, now: datetime) -> bool:
        """Silent for twice as long as ever before. A burst has no rhythm."""
        least, lasted = (QUIET, 3600) if self.subscription_id is None else (SILENT, 600)
        pause = timedelta(seconds=2 * self.longest_pause_seconds)
        is_known = self.minutes >= MANY_MINUTES and self.lasted_seconds >= lasted
        return is_known and now - self.silent_since > max(least, pause)

    def finding(self, now: datetime) -> Finding:
        what = "published" if self.subscription_id is None else "delivered"
        ahead = "" if self.subscription_id is None else ", although messages are ahead"
        silence, before = spelt(now - self.silent_since), spelt(timedelta(seconds=self.longest_pause_seconds))
        return Finding(
            kind="publishers_silent" if self.subscription_id is None else "consumers_silent",
            severity="warning",
            topic_id=self.topic_id,
            subscription_id=self.subscription_id,
            detail=f"nothing was {what} for {silence}{ahead}; before that, pauses were {before} at most",
            since=self.silent_since,
        )


def spelt(time: timedelta) -> str:
    """In whole minutes, or hours."""
    minutes = max(1, round(time.total_seconds() / 60))
    count, unit = (minutes, "minute") if minutes < MINUTES_OF_A_WORD else (round(minutes / 60), "hour")
    return f"{count} {unit}{'' if count == 1 else 's'}"


def is_before(time: datetime | None, limit: datetime) -> bool:
    return time is not None and time < limit
