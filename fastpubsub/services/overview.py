"""The whole server at one look: sums over what a caller may see, and what somebody should look at."""

from collections.abc import Iterable
from datetime import UTC, datetime

from fastpubsub import __version__
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.nodes import MOST_MISSING, Known
from fastpubsub.models import Overview, Rates
from fastpubsub.services.findings import Load, findings, growing, held, silent, worst
from fastpubsub.services.history import COLUMNS, read_history


async def look_at_all(
    database: Database,
    settings: Settings,
    visible_topics: Iterable[str] | None,
    visible_subscriptions: Iterable[str] | None,
) -> Overview:
    """None is all."""
    topic_ids = None if visible_topics is None else list(visible_topics)
    subscription_ids = None if visible_subscriptions is None else list(visible_subscriptions)
    sums = await database.fetch_known("sum_topics", topic_ids, subscription_ids)
    ((topics, subscriptions, published),) = sums.rows
    retention = settings.cleanup_acked_messages_older_than_seconds
    by_topic = await database.is_spread()
    known = await database.fetch_known("list_loads_2", subscription_ids, retention, by_topic)
    loads = [Load(*row) for row in known.rows]
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
        findings=worst(
            [
                *(finding for load in loads for finding in findings(load, now)),
                *await growing(database, loads, now),
                *await silent(database, topic_ids, loads, now),
                *(await held(database, now) if topic_ids is subscription_ids is None else ()),
            ]
        ),
        missing_topics=await _missing(database, known, topic_ids, subscription_ids),
    )


async def _missing(
    database: Database, known: Known, topic_ids: list[str] | None, subscription_ids: list[str] | None
) -> list[str] | None:
    """Of the topics that a caller may see, and those of its subscriptions."""
    of_topics = await database.missing_topics(known, topic_ids, None)
    of_subscriptions = await database.missing_topics(known, None, subscription_ids)
    return sorted({*of_topics, *of_subscriptions})[:MOST_MISSING] or None
