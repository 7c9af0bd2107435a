"""What a filter or a seek would do, before it is set."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from fastpubsub.database.calls import Database
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import SeekPreview
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.subscriptions import seek_arguments

EXAMPLES_BYTES = 1_048_576


class Decision(NamedTuple):
    """Without a field, a readable payload passes."""

    field: str | None
    expected: bytes | None
    actual: bytes | None
    actual_bytes: int | None
    similar_field: str | None
    is_readable: bool

    @property
    def passes(self) -> bool:
        return self.field is None and self.is_readable


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    payload: bytes | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Judged:
    examples: list[Example]
    looked_at: int
    passed: int


class Backlog(NamedTuple):
    ahead_now: int
    ahead_after: int
    is_estimated: bool


async def judge_payload(
    database: Database, filter_json: str | None, payload: bytes, attributes: bytes | None, ordering_key: str | None
) -> Decision:
    arguments = (filter_json, payload.decode(), None if attributes is None else attributes.decode(), ordering_key)
    return Decision(*await database.fetch_one("judge_payload", *arguments))


async def judge_last_messages(
    database: Database, topic_key: int, filter_json: str | None, last: int, *, with_content: bool
) -> Judged:
    rows = await database.fetch_all("judge_last_messages", topic_key, filter_json, last, EXAMPLES_BYTES, with_content)
    *examples, (*_, looked_at, passed) = rows
    found = [Example(MessageIds(topic_key, row[1]).at(row[0]), row[2], Decision(*row[4:10])) for row in examples]
    return Judged(found, looked_at, passed)


async def preview_filter(database: Database, keys: SubscriptionKey, filter_json: str | None) -> Backlog:
    return Backlog(*await database.fetch_one("preview_filter", *keys, filter_json))


async def preview_seek(
    database: Database, directory: Directory, subscription_id: str, to: str | datetime | UUID
) -> SeekPreview:
    async def preview(keys: SubscriptionKey) -> SeekPreview:
        row = await database.fetch_one("preview_seek", *keys, *seek_arguments(subscription_id, keys, to))
        return SeekPreview(**dict(zip(SeekPreview.model_fields, row, strict=True)))

    return await directory.subscriptions.use(subscription_id, preview)
