"""The whole server at one look: sums over what a caller may see, and what somebody should look at."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from fastpubsub import __version__
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.nodes import MOST_MISSING, Known
from fastpubsub.models import Overview, Rates
from fastpubsub.services.findings import Load, findings, growing, held, silent, worst
from fastpubsub.services.history import COLUMNS, read_history


@dataclass(frozen=True, slots=True)
class _Seen:
    topics: int
    subscriptions: int
    published: int
    loads: list[Load]
    known: Known
    published_at: dict[int, datetime] | None
    """When the newest message of each topic was published, where that was asked."""


async def look_at_all(
    database: Database,
    settings: Settings,
    visible_topics: Iterable[str] | None,
    visible_subscriptions: Iterable[str] | None,
) -> Overview:
    """None is all."""
    topic_ids = None if visible_topics is None else list(visible_topics)
    subscription_ids = None if visible_subscriptions is None else list(visible_subscriptions)
    seen = await _see(database, settings, topic_ids, subscription_ids)
    loads = seen.loads
    now = datetime.now(UTC)
    minute = await read_history(database, topic_ids, subscription_ids, 5, int(now.timestamp()) - 65, None)
    return Overview(
        topics=seen.topics,
        subscriptions=seen.subscriptions,
        published=seen.published,
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
                *await silent(database, topic_ids, loads, now, seen.published_at),
                *(await held(database, now) if topic_ids is subscription_ids is None else ()),
            ]
        ),
        missing_topics=await _missing(database, seen.known, topic_ids, subscription_ids),
    )


async def _see(
    database: Database, settings: Settings, topic_ids: list[str] | None, subscription_ids: list[str] | None
) -> _Seen:
    retention = settings.cleanup_acked_messages_older_than_seconds
    if await database.is_spread():
        return await _see_by_node(database, retention, topic_ids, subscription_ids)
    topics, subscriptions, published = await database.fetch_one("sum_topics", topic_ids, subscription_ids)
    loads = await database.fetch_all("list_loads_2", subscription_ids, retention, False)
    return _Seen(topics, subscriptions, published, [Load(*row) for row in loads], Known(loads, None), None)


async def _see_by_node(
    database: Database, retention: int, topic_ids: list[str] | None, subscription_ids: list[str] | None
) -> _Seen:
    """Each node is asked once for all of its topics, and the names come from elsewhere."""
    topics: dict[int, str] = {}
    visible = set()
    subscriptions = {}
    for topic_key, topic_id, is_visible, subscription_key, subscription_id in await database.fetch_all(
        "list_keys", topic_ids, subscription_ids
    ):
        topics[topic_key] = topic_id
        if is_visible:
            visible.add(topic_key)
        if subscription_id is not None:
            subscriptions[subscription_key] = subscription_id
    known = await database.fetch_from_nodes("look_at_topics", topics, retention)
    last = {topic_key: (position, created_at) for topic_key, position, created_at, *_ in known.rows}
    return _Seen(
        len(visible),
        len(subscriptions),
        sum(last[topic_key][0] for topic_key in visible & last.keys()),
        [Load(topics[row[0]], subscriptions[row[3]], *row[4:]) for row in known.rows if row[3] in subscriptions],
        known,
        {topic_key: created_at for topic_key, (_, created_at) in last.items() if created_at is not None},
    )


async def _missing(
    database: Database, known: Known, topic_ids: list[str] | None, subscription_ids: list[str] | None
) -> list[str] | None:
    """Of the topics that a caller may see, and those of its subscriptions."""
    of_topics = await database.missing_topics(known, topic_ids, None)
    of_subscriptions = await database.missing_topics(known, None, subscription_ids)
    return sorted({*of_topics, *of_subscriptions})[:MOST_MISSING] or None
