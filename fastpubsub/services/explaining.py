"""What became of a message: in one subscription, or in each of its topic."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from fastpubsub import message_ids
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.message_ids import MessageId
from fastpubsub.services.directory import Directory, SubscriptionKey


class FoundMessage(NamedTuple):
    """`payload` is None when the topic no longer has the message."""

    topic_id: str
    created_at: datetime
    payload: bytes | None
    attributes: bytes | None
    ordering_key: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Explained:
    """Bytes are JSON, as it is stored."""

    subscription_id: str
    state: str
    attempts: int | None
    consumer_id: str | None
    until: datetime | None
    died_at: datetime | None
    reason: str | None
    before: int | None
    before_is_estimated: bool | None
    filter: bytes | None
    field: str | None
    expected: bytes | None
    actual: bytes | None
    actual_bytes: int | None
    similar_field: str | None
    is_readable: bool | None
    sought_at: datetime | None
    paused_at: datetime | None
    leased_at: datetime | None
    is_put_aside: bool | None
    at_limit: int | None
    at_rate_limit: float | None
    failures: bytes | None
    expired_at: datetime | None
    held_by: str | None
    may_be_dropped: bool | None


def locate(message_id: str) -> MessageId:
    place = message_ids.parse(message_id)
    if place is None:
        raise unknown(message_id)
    return place


async def find_message(database: Database, message_id: str) -> FoundMessage:
    place = locate(message_id)
    try:
        topic_id, last, created_at, *content = await database.fetch_one(
            "find_message_2", place.topic_key, place.position
        )
    except NotFound:
        raise unknown(message_id) from None
    milliseconds = created_at and created_at.replace(microsecond=created_at.microsecond // 1000 * 1000)
    if not 0 < place.position <= last or milliseconds not in (None, place.created_at):
        raise unknown(message_id)
    return FoundMessage(topic_id, created_at or place.created_at, *content)


async def explain_in_one(
    database: Database, directory: Directory, subscription_id: str, message_id: str
) -> tuple[FoundMessage, Explained]:
    place = locate(message_id)

    async def explain(keys: SubscriptionKey) -> Explained | None:
        if place.topic_key != keys.topic_key:
            await database.fetch_one("require_subscription", *keys)
            return None
        return Explained(subscription_id, *await database.fetch_one("explain_message_2", *keys, place.position))

    explained = await directory.subscriptions.use(subscription_id, explain)
    if explained is None:
        raise InvalidRequest(f'message {message_id} is not of the topic that subscription "{subscription_id}" reads')
    return await find_message(database, message_id), explained


async def explain_in_all(
    database: Database, message_id: str, only: Iterable[str] | None, offset: int, limit: int
) -> list[Explained]:
    """`only`: the subscriptions that the caller may see, None for all."""
    visible = None if only is None else list(only)
    rows = await database.fetch_all("explain_in_subscriptions_2", *locate(message_id)[:2], visible, offset, limit)
    return [Explained(*row) for row in rows]


def unknown(message_id: str) -> NotFound:
    return NotFound(f"there is no message {message_id}; take the id that a publish or a pull answered")
