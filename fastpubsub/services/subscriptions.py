import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from fastpubsub import message_ids
from fastpubsub.config import Settings
from fastpubsub.connections import Row
from fastpubsub.database import Database
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.models import ChangedSubscription, NewSubscription, Subscription, SubscriptionMetrics
from fastpubsub.payloads import number
from fastpubsub.services.directory import Directory, SubscriptionKey


async def create_subscription(
    database: Database, settings: Settings, new: NewSubscription, filter_json: bytes | None
) -> Subscription:
    """`filter_json` is the filter as it was written, so that its numbers stay what they are."""
    ack_deadline = _given(new.ack_deadline_seconds, settings.cleanup_stuck_messages_lock_timeout_seconds)
    attempts = _given(new.max_delivery_attempts, settings.subscription_max_attempts)
    backoff_min = _given(new.backoff_min_seconds, settings.subscription_backoff_min_seconds)
    backoff_max = _given(new.backoff_max_seconds, max(settings.subscription_backoff_max_seconds, backoff_min))
    start, time = _start(new.start_from)
    await database.fetch_one(
        "create_subscription",
        new.id,
        new.topic_id,
        _text(filter_json),
        ack_deadline,
        attempts,
        backoff_min,
        backoff_max,
        start,
        time,
    )
    return await get_subscription(database, new.id)


async def get_subscription(database: Database, subscription_id: str) -> Subscription:
    rows = await database.fetch_all("list_subscriptions", 0, 1, [subscription_id])
    if not rows:
        raise NotFound(f'subscription "{subscription_id}" does not exist')
    return _subscription(rows[0])


async def list_subscriptions(
    database: Database, offset: int, limit: int, only: Iterable[str] | None = None
) -> list[Subscription]:
    """`only`: the subscriptions that the caller may see, None for all."""
    rows = await database.fetch_all("list_subscriptions", offset, limit, None if only is None else list(only))
    return [_subscription(row) for row in rows]


async def update_subscription(
    database: Database, subscription_id: str, changed: ChangedSubscription, filter_json: bytes | None
) -> Subscription:
    await database.fetch_one(
        "update_subscription",
        subscription_id,
        "filter" in changed.model_fields_set,
        _text(filter_json),
        changed.ack_deadline_seconds,
        changed.max_delivery_attempts,
        changed.backoff_min_seconds,
        changed.backoff_max_seconds,
    )
    return await get_subscription(database, subscription_id)


async def delete_subscription(database: Database, subscription_id: str) -> None:
    await database.fetch_one("delete_subscription", subscription_id)


async def seek_subscription(
    database: Database, directory: Directory, subscription_id: str, to: str | datetime | UUID
) -> None:
    """To `earliest`, `latest`, a time, or the message that comes next."""

    async def seek(keys: SubscriptionKey) -> None:
        if isinstance(to, UUID):
            message = message_ids.parse(str(to))
            if message is None or message.topic_key != keys.topic_key:
                raise InvalidRequest(f'{to} is no message of the topic of subscription "{subscription_id}"')
            await database.fetch_one("seek_subscription", *keys, "message", None, message.position)
        else:
            await database.fetch_one("seek_subscription", *keys, *_start(to))

    await directory.subscriptions.use(subscription_id, seek)


async def get_metrics(database: Database, directory: Directory, subscription_id: str) -> SubscriptionMetrics:
    async def metrics(keys: SubscriptionKey) -> SubscriptionMetrics:
        ahead, waiting, leased, dead, acked, estimated, _ = await database.fetch_one("subscription_metrics", *keys)
        return SubscriptionMetrics(
            subscription_id=subscription_id,
            available=ahead + waiting,
            delivered=leased,
            acked=acked,
            dlq=dead,
            estimated=estimated,
        )

    return await directory.subscriptions.use(subscription_id, metrics)


def _subscription(row: Row) -> Subscription:
    id_, topic_id, filter_json, ack_deadline, attempts, backoff_min, backoff_max, created_at = row
    return Subscription(
        id=id_,
        topic_id=topic_id,
        filter=None if filter_json is None else json.loads(filter_json, parse_float=number),
        max_delivery_attempts=attempts,
        backoff_min_seconds=backoff_min,
        backoff_max_seconds=backoff_max,
        ack_deadline_seconds=ack_deadline,
        created_at=created_at,
    )


def _start(to: str | datetime) -> tuple[str, datetime | None]:
    return ("time", to) if isinstance(to, datetime) else (to, None)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _text(filter_json: bytes | None) -> Any:
    return None if filter_json is None else filter_json.decode()
