"""Looking at messages without taking them: those of a topic, or those of a subscription by state."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import BrowsedState
from fastpubsub.searches import Place, Search, parse_due, parse_place
from fastpubsub.services.directory import Directory, SubscriptionKey


class Page(NamedTuple):
    limit: int
    max_bytes: int
    with_content: bool
    search: Search | None


@dataclass(frozen=True, slots=True)
class Seen:
    """`at`: the deadline, the due time or the time of death; `note`: the consumer or the reason; `since`: when
    it was leased.
    """

    id: str
    position: int
    created_at: datetime
    attempts: int
    at: datetime | None
    note: str | None
    since: datetime | None
    payload: bytes | None
    attributes: bytes | None
    ordering_key: str | None
    failures: bytes | None
    expires_at: datetime | None


class Browsed(NamedTuple):
    """`next` is the position, and the due time, that comes after what was looked at, None at the end.

    `other_side` is where this began, None when nothing is on the other side of it.
    """

    seen: list[Seen]
    looked_at: int
    next: Place | None
    other_side: int | None


async def browse_topic(
    database: Database, directory: Directory, topic_id: str, start: str | None, before: str | None, page: Page
) -> Browsed:
    """From `start` on, or backwards from `before`, which is the end unless it is given; the oldest comes first."""

    async def browse(topic_key: int) -> Browsed:
        place = parse_place(start or before, topic_key)
        browsed = await _browse(database, topic_key, None, "all", place, start is None, page)
        if start is None:
            browsed.seen.reverse()
        return browsed

    return await directory.topics.use(topic_id, browse)


async def browse_subscription(
    database: Database, directory: Directory, subscription_id: str, state: BrowsedState, start: str | None, page: Page
) -> Browsed:
    """By position, and the waiting ones by the time at which they are due."""

    async def browse(keys: SubscriptionKey) -> Browsed:
        place = parse_due(start) if state == "waiting" else parse_place(start, keys.topic_key)
        return await _browse(database, *keys, state, place, False, page)

    return await directory.subscriptions.use(subscription_id, browse)


async def _browse(
    database: Database,
    topic_key: int,
    subscription_key: int | None,
    state: str,
    place: Place,
    backwards: bool,
    page: Page,
) -> Browsed:
    where, name, values = page.search or (None, None, ())
    *rows, (position, _, _, at, _, _, _, _, looked_at, other_side, *_) = await database.fetch_all(
        "browse_messages_2",
        topic_key,
        subscription_key,
        state,
        *place,
        backwards,
        page.limit,
        page.max_bytes,
        page.with_content,
        where,
        name,
        Array("text", values),
    )
    seen = [Seen(MessageIds(topic_key, row[1]).at(row[0]), *row[:8], *row[10:]) for row in rows]
    following = None if position is None else Place(position, at if state == "waiting" else None)
    return Browsed(seen, looked_at, following, other_side)
