"""Delayed messages: looking at them, moving, cancelling and releasing them before they come."""

import re
from datetime import datetime
from typing import NamedTuple

from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.delayed_ids import delayed_id, parse
from fastpubsub.exceptions import AlreadyExists, FastpubsubError, NotFound
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import DelayedTime
from fastpubsub.refused_ids import refused_id
from fastpubsub.services.directory import Directory

RELEASE_CHUNK = 1000
_PLACE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z/\d{1,18}", re.ASCII)


class Delayed(NamedTuple):
    """`payload` is None when it was published."""

    id: str
    topic_id: str
    state: str
    due_at: datetime
    created_at: datetime
    message_id: str | None
    payload: bytes | None
    attributes: bytes | None
    ordering_key: str | None
    ttl_seconds: int | None = None
    expires_at: datetime | None = None


class Place(NamedTuple):
    """The last message of a page."""

    due_at: datetime
    key: int

    @classmethod
    def parse(cls, text: str) -> "Place":
        time, _, key = text.partition("/")
        return cls(datetime.fromisoformat(time), int(key))

    @staticmethod
    def is_possible(text: str) -> bool:
        if _PLACE.fullmatch(text) is None:
            return False
        try:
            Place.parse(text)
        except ValueError:  # a day or an hour that does not exist
            return False
        return True


async def list_delayed(
    database: Database,
    directory: Directory,
    topic_id: str,
    *,
    held: bool,
    after: Place | None,
    limit: int,
    max_bytes: int,
) -> tuple[list[Delayed], Place | None]:
    """Ordered by time; with the place after which the next page begins, None at the end."""

    async def list_(topic_key: int) -> list[Row]:
        return await database.fetch_all(
            "list_delayed_messages", topic_key, held, *(after or (None, None)), limit + 1, max_bytes
        )

    rows = await directory.topics.use(topic_id, list_)
    found = []
    for key, due_at, created_at, *content, _, ttl_seconds, expires_at in rows[:limit]:
        state = "held" if held else "waiting"
        content += [ttl_seconds, expires_at]
        found.append(Delayed(delayed_id(key), topic_id, state, due_at, created_at, None, *content))
    if not rows or rows[0][-3] <= len(found):
        return found, None
    key, due_at, *_ = rows[len(found) - 1]
    return found, Place(due_at, key)


async def get_delayed(database: Database, directory: Directory, topic_id: str, id_: str) -> Delayed:
    key = parse(id_)

    async def get(topic_key: int) -> Delayed | None:
        state, due_at, created_at, *content, position, ttl_seconds, expires_at = await database.fetch_one(
            "get_delayed_message", topic_key, key
        )
        message_id = None if position is None else MessageIds(topic_key, created_at).at(position)
        content += [ttl_seconds, expires_at]
        return state and Delayed(delayed_id(key), topic_id, state, due_at, created_at, message_id, *content)

    found = await directory.topics.use(topic_id, get)
    if found is None:
        raise await _unknown(database, directory, topic_id, id_)
    return found


async def move_delayed(database: Database, directory: Directory, topic_id: str, id_: str, new: DelayedTime) -> Delayed:
    key = parse(id_)

    async def move(topic_key: int) -> Row:
        return await database.fetch_one("move_delayed_message", topic_key, key, new.deliver_at, new.delay_seconds)

    due_at, published = await directory.topics.use(topic_id, move)
    if due_at is None:
        raise await _too_late(database, directory, topic_id, id_, published)
    return await get_delayed(database, directory, topic_id, id_)


async def cancel_delayed(database: Database, directory: Directory, topic_id: str, id_: str) -> None:
    key = parse(id_)

    async def cancel(topic_key: int) -> Row:
        return await database.fetch_one("cancel_delayed_message", topic_key, key)

    cancelled, published = await directory.topics.use(topic_id, cancel)
    if not cancelled:
        raise await _too_late(database, directory, topic_id, id_, published)


async def release_delayed(database: Database, directory: Directory, topic_id: str, change: Change | None = None) -> int:
    """Lets all that is held come now; returns how many that are. The change is recorded with the first of them."""

    async def release(topic_key: int) -> int:
        total, record = 0, change
        while True:
            (released,) = await database.fetch_one("release_delayed_messages", topic_key, RELEASE_CHUNK, change=record)
            total, record = total + int(released), None
            if released < RELEASE_CHUNK:
                return total

    return await directory.topics.use(topic_id, release)


async def _too_late(
    database: Database, directory: Directory, topic_id: str, id_: str, published: bool
) -> FastpubsubError:
    if not published:
        return await _unknown(database, directory, topic_id, id_)
    return AlreadyExists(f'the delayed message "{id_}" is published already; its `message_id` says as what')


async def _unknown(database: Database, directory: Directory, topic_id: str, id_: str) -> NotFound:
    async def find(topic_key: int) -> Row:
        return await database.fetch_one("find_refused_message", topic_key, parse(id_))

    (refused,) = await directory.topics.use(topic_id, find)
    if refused is not None:
        return NotFound(
            f'the delayed message "{id_}" does not match the schema of topic "{topic_id}", and was refused: it is '
            f'"{refused_id(refused)}" of its refused messages now, which says why'
        )
    return NotFound(
        f'topic "{topic_id}" has no delayed message "{id_}"; it was cancelled, or published more than a day ago'
    )
