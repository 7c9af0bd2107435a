"""The whole server at one look: sums over what a caller may see, and what somebody should look at."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fastpubsub import __version__
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.models import Finding, FindingKind, Overview, Rates
from fastpubsub.services.history import COLUMNS, read_history

MAX_FINDINGS = 100
STUCK = timedelta(hours=1)
"""After which the alerts call a message stuck that is leased or waiting."""

PINNED = timedelta(hours=1)
"""Beyond the retention."""

ORDER: Sequence[FindingKind] = (
    "expired_leases",
    "backlog_grows",
    "old_lease",
    "old_waiting",
    "dead_letters",
    "pins_the_log",
    "consumers_silent",
    "publishers_silent",
    "paused",
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

    def finding(self, kind: FindingKind, detail: str, since: datetime | None) -> Finding:
        return Finding(
            kind=kind,
            severity="warning",
            topic_id=self.topic_id,
            subscription_id=self.subscription_id,
            detail=detail,
            since=since,
        )


async def look_at_all(
    database: Database,
    settings: Settings,
    visible_topics: Iterable[str] | None,
    visible_subscriptions: Iterable[str] | None,
) -> Overview:
    """None is all."""
    topic_ids = None if visible_topics is None else list(visible_topics)
    subscription_ids = None if visible_subscriptions is None else list(visible_subscriptions)
    topics, subscriptions, published = await database.fetch_one("sum_topics", topic_ids, subscription_ids)
    retention = settings.cleanup_acked_messages_older_than_seconds
    loads = [Load(*row) for row in await database.fetch_all("list_loads", subscription_ids, retention)]
    now = datetime.now(UTC)
    minute = await read_history(database, topic_ids, subscription_ids, 5, int(now.timestamp()) - 65, None)
    return Overview(
        topics=topics,
        subscriptions=subscriptions,
        published=published,
        ahead=sum(load.behind for load in loads),
        ahead_is_estimated=any(load.is_filtered and load.behind for load in loads),
        leased=sum(load.leased for load in loads),
        waiting=sum(load.waiting for load in loads),
        dlq=sum(load.dead for load in loads),
        rates=Rates(**{name: sum(minute[name][-12:]) / 60 for name in COLUMNS}),
        is_authentication_on=settings.auth_enabled,
        version=__version__,
        server_time=now,
        findings=worst(finding for load in loads for finding in findings(load, now)),
    )


def worst(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda one: (ORDER.index(one.kind), one.since or datetime.max.replace(tzinfo=UTC)))[
        :MAX_FINDINGS
    ]


def findings(load: Load, now: datetime) -> Iterator[Finding]:
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


def is_before(time: datetime | None, limit: datetime) -> bool:
    return time is not None and time < limit
