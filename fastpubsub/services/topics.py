from collections.abc import Iterable

from fastpubsub.database import Database
from fastpubsub.models import Topic


async def create_topic(database: Database, topic_id: str, retention_seconds: int | None) -> Topic:
    _, created_at = await database.fetch_one("create_topic", topic_id, retention_seconds)
    return Topic(id=topic_id, created_at=created_at, retention_seconds=retention_seconds)


async def get_topic(database: Database, topic_id: str) -> Topic:
    _, identifier, retention_seconds, created_at = await database.fetch_one("get_topic", topic_id)
    return Topic(id=identifier, created_at=created_at, retention_seconds=retention_seconds)


async def list_topics(database: Database, offset: int, limit: int, only: Iterable[str] | None = None) -> list[Topic]:
    """`only`: the topics that the caller may see, None for all."""
    rows = await database.fetch_all("list_topics", offset, limit, None if only is None else list(only))
    return [Topic(id=id_, retention_seconds=retention, created_at=created_at) for id_, retention, created_at in rows]


async def update_topic(database: Database, topic_id: str, retention_seconds: int | None) -> Topic:
    await database.fetch_one("update_topic", topic_id, retention_seconds)
    return await get_topic(database, topic_id)


async def delete_topic(database: Database, topic_id: str) -> None:
    await database.fetch_one("delete_topic", topic_id)
