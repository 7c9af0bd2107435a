import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fastpubsub.config import Settings
from fastpubsub.database import Database
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import ChangedTopic, NewTopic, Topic
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.payloads import number


async def create_topic(database: Database, settings: Settings, new: NewTopic, schema_json: bytes | None) -> Topic:
    """`schema_json` is the schema as it was written, so that its numbers stay what they are."""
    schema = _checked(settings, schema_json)
    _, created_at = await database.fetch_one("create_topic", new.id, new.retention_seconds, schema)
    return _topic(new.id, new.retention_seconds, created_at, schema)


async def get_topic(database: Database, topic_id: str) -> Topic:
    _, *row = await database.fetch_one("get_topic", topic_id)
    return _topic(*row)


async def list_topics(database: Database, offset: int, limit: int, only: Iterable[str] | None = None) -> list[Topic]:
    """`only`: the topics that the caller may see, None for all."""
    rows = await database.fetch_all("list_topics", offset, limit, None if only is None else list(only))
    return [_topic(*row) for row in rows]


async def update_topic(
    database: Database, settings: Settings, topic_id: str, changed: ChangedTopic, schema_json: bytes | None
) -> Topic:
    await database.fetch_one(
        "update_topic",
        topic_id,
        changed.retention_seconds,
        "retention_seconds" in changed.model_fields_set,
        _checked(settings, schema_json),
        "payload_schema" in changed.model_fields_set,
    )
    return await get_topic(database, topic_id)


async def delete_topic(database: Database, topic_id: str) -> None:
    await database.fetch_one("delete_topic", topic_id)


def _checked(settings: Settings, schema_json: bytes | None) -> str | None:
    if schema_json is None or schema_json == b"null":
        return None
    if len(schema_json) > settings.schema_max_bytes:
        raise InvalidRequest(
            f"the schema has {len(schema_json)} bytes, more than the {settings.schema_max_bytes} that it may have"
        )
    PayloadSchema(schema_json)
    return schema_json.decode()


def _topic(topic_id: str, retention: int | None, created_at: datetime, schema: str | bytes | None) -> Topic:
    value: Any = None if schema is None else json.loads(schema, parse_float=number)
    return Topic(id=topic_id, created_at=created_at, retention_seconds=retention, payload_schema=value)
