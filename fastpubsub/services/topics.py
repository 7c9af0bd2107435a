from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.models import ChangedTopic, NewTopic
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.services.listed import Listed


class StoredTopic(NamedTuple):
    """`schema` is the JSON that somebody wrote: its numbers stay what they are."""

    id: str
    created_at: datetime
    retention_seconds: int | None
    schema: bytes | None


async def create_topic(
    database: Database, settings: Settings, new: NewTopic, schema_json: bytes | None, change: Change | None = None
) -> StoredTopic:
    """`schema_json` is the schema as it was written."""
    schema = _checked(settings, schema_json)
    _, created_at = await database.fetch_one(
        "create_topic", new.id, new.retention_seconds, _text(schema), change=change
    )
    return StoredTopic(new.id, created_at, new.retention_seconds, schema)


async def get_topic(database: Database, topic_id: str) -> StoredTopic:
    _, *row = await database.fetch_one("get_topic", topic_id)
    return _topic(*row)


async def list_topics(
    database: Database,
    offset: int,
    limit: int,
    only: Iterable[str] | None = None,
    *,
    part: str | None = None,
    after: str | None = None,
) -> Listed[StoredTopic]:
    """`only`: the topics that the caller may see, None for all; `part` of their ids; `after` an id."""
    visible = None if only is None else list(only)
    known = await database.fetch_known("list_topics", offset, limit, visible, part, after)
    return Listed([_topic(*row) for row in known.rows], await database.missing_topics(known, visible, None))


async def update_topic(
    database: Database,
    settings: Settings,
    topic_id: str,
    changed: ChangedTopic,
    schema_json: bytes | None,
    change: Change | None = None,
) -> StoredTopic:
    await database.fetch_one(
        "update_topic",
        topic_id,
        changed.retention_seconds,
        "retention_seconds" in changed.model_fields_set,
        _text(_checked(settings, schema_json)),
        "payload_schema" in changed.model_fields_set,
        change=change,
    )
    return await get_topic(database, topic_id)


async def delete_topic(database: Database, topic_id: str, change: Change | None = None) -> None:
    await database.fetch_one("delete_topic", topic_id, change=change)


def _checked(settings: Settings, schema_json: bytes | None) -> bytes | None:
    if schema_json is None or schema_json == b"null":
        return None
    if len(schema_json) > settings.schema_max_bytes:
        raise InvalidRequest(
            f"the schema has {len(schema_json)} bytes, more than the limit of {settings.schema_max_bytes}"
        )
    PayloadSchema(schema_json)
    return schema_json


def _text(schema: bytes | None) -> str | None:
    return None if schema is None else schema.decode()


def _topic(topic_id: str, retention: int | None, created_at: datetime, schema: bytes | None) -> StoredTopic:
    return StoredTopic(topic_id, created_at, retention, schema)
