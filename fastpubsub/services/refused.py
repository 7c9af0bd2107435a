"""Messages from SQL that do not match the schema of their topic: looking at them, publishing them again, purging."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.delayed_ids import delayed_id
from fastpubsub.refused_ids import parse, refused_id
from fastpubsub.services.directory import Directory
from fastpubsub.services.topic_schemas import Known, TopicSchemas, misfits

COUNTED = 1000
"""Of a topic; more of them are not counted."""


class Refused(NamedTuple):
    id: str
    topic_id: str
    refused_at: datetime
    reason: str
    payload: bytes
    attributes: bytes | None
    ordering_key: str | None
    deliver_at: datetime | None
    delayed_id: str | None
    ttl_seconds: int | None
    expires_at: datetime | None


class RefusedMessages:
    def __init__(self, database: Database, directory: Directory, max_bytes: int) -> None:
        self._database = database
        self._topics = directory.topics
        self._schemas = TopicSchemas(database)
        self._max_bytes = max_bytes

    async def list_(self, topic_id: str, after: int | None, limit: int) -> tuple[list[Refused], int | None]:
        """In the order in which they were refused; with the key after which the next page begins, None at the end."""

        async def list_(topic_key: int) -> list[Any]:
            return await self._database.fetch_all("list_refused_messages", topic_key, after, limit + 1, self._max_bytes)

        rows = await self._topics.use(topic_id, list_)
        shown = rows[:limit]
        more = rows and rows[0][-1] > len(shown)
        return [_refused(topic_id, *row[:-1]) for row in shown], shown[-1][0] if more else None

    async def publish(self, topic_id: str, ids: Sequence[str], change: Change | None = None) -> list[str]:
        """Gives those to the relay that match the schema of now; returns their ids.

        The others stay, with what is wrong now as their reason, or not looked at, when they are too many for one call.
        """
        keys = [parse(id_) for id_ in ids]

        async def publish(topic_key: int) -> list[int]:
            async def publish(known: Known | None) -> list[int]:
                found, reasons = await self._judge(topic_key, keys, known)
                arguments = (Array("int8", found), Array("text", reasons), known.version if known else 0)
                (published,) = await self._database.fetch_one(
                    "publish_refused_messages", topic_key, *arguments, change=change
                )
                return list(published)

            return await self._schemas.judge(topic_key, publish)

        return _named(ids, keys, await self._topics.use(topic_id, publish))

    async def purge(self, topic_id: str, ids: Sequence[str], change: Change | None = None) -> list[str]:
        """Returns the ids that are gone for good."""
        keys = [parse(id_) for id_ in ids]

        async def purge(topic_key: int) -> list[int]:
            (purged,) = await self._database.fetch_one(
                "purge_refused_messages", topic_key, Array("int8", keys), change=change
            )
            return list(purged)

        return _named(ids, keys, await self._topics.use(topic_id, purge))

    async def _judge(
        self, topic_key: int, keys: Sequence[int], known: Known | None
    ) -> tuple[list[int], list[str | None]]:
        """Those that are there, and what is wrong with each."""
        rows = await self._database.fetch_all(
            "list_refused_messages", topic_key, None, len(keys), self._max_bytes, Array("int8", keys)
        )
        found = [row[0] for row in rows]
        if known is None:
            return found, [None] * len(found)
        judged = await misfits(known.schema, [row[3] for row in rows])
        return found[: len(judged)], [None if misfit is None else misfit.detail for misfit in judged]


async def count_refused(
    database: Database, topics: int, topic_ids: Sequence[str] | None = None
) -> list[tuple[str, int]]:
    """Up to COUNTED each, of those topics that have any."""
    ids = None if topic_ids is None else list(topic_ids)
    return [
        (topic_id, count)
        for topic_id, count in await database.fetch_all("count_refused_messages", COUNTED, topics, ids)
    ]


async def trim_refused(database: Database, older_than_seconds: int) -> int:
    trimmed = 0
    while chunk := (await database.fetch_one("trim_refused_messages", older_than_seconds))[0]:
        trimmed += chunk
    return trimmed


def _named(ids: Sequence[str], keys: Sequence[int], moved: Sequence[int]) -> list[str]:
    """Each once, in the order in which they were given."""
    found = set(moved)
    return list(dict.fromkeys(id_ for id_, key in zip(ids, keys, strict=True) if key in found))


def _refused(topic_id: str, key: int, refused_at: datetime, reason: str, *content: Any) -> Refused:
    payload, attributes, ordering_key, deliver_at, delayed_key, ttl_seconds, expires_at = content
    delayed = None if delayed_key is None else delayed_id(delayed_key)
    return Refused(
        refused_id(key),
        topic_id,
        refused_at,
        reason,
        payload,
        attributes,
        ordering_key,
        deliver_at,
        delayed,
        ttl_seconds,
        expires_at,
    )
