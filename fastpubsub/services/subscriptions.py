import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from fastpubsub import message_ids
from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.changes import Change
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.models import ChangedSubscription, NewSubscription, PurgedSubscription, SubscriptionMetrics
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.listed import Listed

NOT_FORKED = {"id", "topic_id", "filter", "fork_of", "push"}
"""Members of a new subscription that are no numbers and words beside its cursor."""


class StoredSubscription(NamedTuple):
    """`filter` is the JSON that somebody wrote: its numbers stay what they are."""

    id: str
    topic_id: str
    filter: bytes | None
    max_delivery_attempts: int
    backoff_min_seconds: int
    backoff_max_seconds: int
    ack_deadline_seconds: int
    created_at: datetime
    paused_at: datetime | None
    push: bytes | None
    ordered: bool
    max_in_flight: int | None
    rate_limit: float | None
    dead_letter_topic: str | None
    expire_after_seconds: int | None
    expires_at: datetime | None
    on_expired: str
    on_dead_letter: str
    max_backlog: int | None
    on_full: str
    fair_by: str | None
    backoff_jitter: float | None


async def create_subscription(
    database: Database,
    settings: Settings,
    new: NewSubscription,
    filter_json: bytes | None,
    change: Change | None = None,
    push: str | None = None,
) -> StoredSubscription:
    """`filter_json` is the filter as it was written, `push` what is stored of it."""
    if new.fork_of is not None:
        return await _fork_subscription(database, settings, new, filter_json, change, push)
    start, time = _start(new.start_from)
    await database.fetch_one(
        "create_subscription",
        new.id,
        new.topic_id,
        filter_text(settings, filter_json),
        *_retrying(settings, new),
        start,
        time,
        None,
        push,
        new.ordered,
        new.max_in_flight,
        new.rate_limit,
        new.dead_letter_topic,
        new.expire_after_seconds,
        new.on_expired,
        new.on_dead_letter,
        new.max_backlog,
        new.on_full,
        new.fair_by,
        new.backoff_jitter,
        change=change,
    )
    return await get_subscription(database, new.id)


def _retrying(settings: Settings, new: NewSubscription) -> tuple[int, int, int, int]:
    """The ack deadline, the attempts, and the bounds of the backoff; what is not given is as the settings say."""
    ack_deadline = _given(new.ack_deadline_seconds, settings.cleanup_stuck_messages_lock_timeout_seconds)
    attempts = _given(new.max_delivery_attempts, settings.subscription_max_attempts)
    backoff_min = _given(new.backoff_min_seconds, settings.subscription_backoff_min_seconds)
    backoff_max = _given(new.backoff_max_seconds, max(settings.subscription_backoff_max_seconds, backoff_min))
    _check_backoff(backoff_min, backoff_max)
    return ack_deadline, attempts, backoff_min, backoff_max


async def _fork_subscription(
    database: Database,
    settings: Settings,
    new: NewSubscription,
    filter_json: bytes | None,
    change: Change | None,
    push: str | None,
) -> StoredSubscription:
    _check_backoff(new.backoff_min_seconds, new.backoff_max_seconds)
    await database.fetch_one(
        "fork_subscription",
        new.id,
        new.topic_id,
        new.fork_of,
        new.model_dump_json(exclude=NOT_FORKED, exclude_unset=True, exclude_none=True),
        "filter" in new.model_fields_set,
        filter_text(settings, filter_json),
        push,
        change=change,
    )
    return await get_subscription(database, new.id)


async def get_subscription(database: Database, subscription_id: str) -> StoredSubscription:
    rows = await database.fetch_all("list_subscriptions_4", 0, 1, [subscription_id])
    if not rows:
        raise NotFound(f'subscription "{subscription_id}" does not exist')
    return _subscription(rows[0])


async def list_subscriptions(
    database: Database,
    offset: int,
    limit: int,
    only: Iterable[str] | None = None,
    topic_id: str | None = None,
    *,
    part: str | None = None,
    after: str | None = None,
    has_dead_letters: bool = False,
) -> Listed[StoredSubscription]:
    """`only`: the subscriptions that the caller may see, None for all; `topic_id`: None for those of all topics; `part`
    of their ids; `after` an id.
    """
    visible = None if only is None else list(only)
    by_topic = has_dead_letters and await database.is_spread()
    known = await database.fetch_known(
        "list_subscriptions_4", offset, limit, visible, topic_id, part, after, has_dead_letters, by_topic
    )
    topic_ids = None if topic_id is None else [topic_id]
    missing = await database.missing_topics(known, topic_ids, visible)
    return Listed([_subscription(row) for row in known.rows], missing)


async def update_subscription(
    database: Database,
    settings: Settings,
    subscription_id: str,
    changed: ChangedSubscription,
    filter_json: bytes | None,
    change: Change | None = None,
    push: str | None = None,
) -> tuple[StoredSubscription, bool]:
    """Returns as well whether the secret of `push` was taken."""
    _check_backoff(changed.backoff_min_seconds, changed.backoff_max_seconds)
    (is_new_secret,) = await database.fetch_one(
        "update_subscription_2",
        subscription_id,
        "filter" in changed.model_fields_set,
        filter_text(settings, filter_json),
        changed.ack_deadline_seconds,
        changed.max_delivery_attempts,
        changed.backoff_min_seconds,
        changed.backoff_max_seconds,
        "push" in changed.model_fields_set,
        push,
        changed.limit("max_in_flight"),
        changed.limit("rate_limit"),
        changed.name("dead_letter_topic"),
        changed.limit("expire_after_seconds"),
        changed.on_expired,
        changed.on_dead_letter,
        None,
        changed.limit("max_backlog"),
        changed.on_full,
        changed.limit("backoff_jitter"),
        change=change,
    )
    return await get_subscription(database, subscription_id), is_new_secret


async def pause_subscription(
    database: Database, subscription_id: str, *, is_paused: bool, change: Change | None = None
) -> StoredSubscription:
    """Pauses or resumes."""
    await database.fetch_one("pause_subscription", subscription_id, is_paused, change=change)
    return await get_subscription(database, subscription_id)


async def purge_subscription(
    database: Database, directory: Directory, subscription_id: str, change: Change | None = None
) -> PurgedSubscription:
    async def purge(keys: SubscriptionKey) -> PurgedSubscription:
        purged, is_estimated = await database.fetch_one("purge_subscription", *keys, change=change)
        return PurgedSubscription(purged=purged, is_estimated=is_estimated)

    return await directory.subscriptions.use(subscription_id, purge)


async def delete_subscription(database: Database, subscription_id: str, change: Change | None = None) -> None:
    await database.fetch_one("delete_subscription", subscription_id, change=change)


async def seek_subscription(
    database: Database,
    directory: Directory,
    subscription_id: str,
    to: str | datetime | UUID,
    change: Change | None = None,
) -> None:
    """Moves the cursor to `earliest`, `latest`, a time, or the message that comes next."""

    async def seek(keys: SubscriptionKey) -> None:
        await database.fetch_one("seek_subscription", *keys, *seek_arguments(subscription_id, keys, to), change=change)

    await directory.subscriptions.use(subscription_id, seek)


def seek_arguments(
    subscription_id: str, keys: SubscriptionKey, to: str | datetime | UUID
) -> tuple[str, datetime | None, int | None]:
    """Of the procedures: the kind of target, its time, its position."""
    if not isinstance(to, UUID):
        return *_start(to), None
    message = message_ids.parse(str(to))
    if message is None or message.topic_key != keys.topic_key:
        raise InvalidRequest(f'{to} is not a message of the topic of subscription "{subscription_id}"')
    return "message", None, message.position


async def get_metrics(database: Database, directory: Directory, subscription_id: str) -> SubscriptionMetrics:
    async def metrics(keys: SubscriptionKey) -> SubscriptionMetrics:
        row = await database.fetch_one("subscription_metrics_2", *keys)
        ahead, waiting, leased, dead, acked, estimated, *_, filtered, is_paused, ttl_expired, held_keys, dropped = row
        return SubscriptionMetrics(
            subscription_id=subscription_id,
            available=ahead + waiting,
            delivered=leased,
            acked=acked,
            dlq=dead,
            filtered=filtered,
            ttl_expired=ttl_expired or None,
            held_keys=held_keys or None,
            dropped=dropped or None,
            estimated=estimated,
            paused=is_paused or None,
        )

    return await directory.subscriptions.use(subscription_id, metrics)


def _subscription(row: Row) -> StoredSubscription:
    id_, topic_id, filter_json, ack_deadline, attempts, backoff_min, backoff_max, *times = row
    return StoredSubscription(id_, topic_id, filter_json, attempts, backoff_min, backoff_max, ack_deadline, *times)


def rate_text(rate: float) -> str:
    """Returns it without an exponent, as in a sentence."""
    return f"{Decimal(repr(rate)).normalize():f}"


def _start(to: str | datetime) -> tuple[str, datetime | None]:
    return ("time", to) if isinstance(to, datetime) else (to, None)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def filter_text(settings: Settings, filter_json: bytes | None) -> str | None:
    if filter_json is None:
        return None
    if len(filter_json) > settings.filter_max_bytes:
        raise InvalidRequest(
            f"the filter has {len(filter_json)} bytes, more than the limit of {settings.filter_max_bytes}"
        )
    json.loads(filter_json, object_pairs_hook=_check_names)
    return filter_json.decode()


def _check_names(members: list[tuple[str, object]]) -> None:
    for name, times in Counter(name for name, _ in members).items():
        if times > 1:
            raise InvalidRequest(f"the filter names the field {json.dumps(name, ensure_ascii=False)} twice")


def _check_backoff(minimum: int | None, maximum: int | None) -> None:
    if minimum is not None and maximum is not None and maximum < minimum:
        raise InvalidRequest("backoff_max_seconds must not be below backoff_min_seconds")
