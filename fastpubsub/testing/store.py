"""What PostgreSQL stores, in plain Python, for tests: the same rules, and a clock that only the test moves."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from fastpubsub.exceptions import AlreadyExists, InvalidRequest, NotFound
from fastpubsub.message_ids import MessageIds, Target, Targets, parse_targets
from fastpubsub.models import ChangedSubscription, NewSubscription, Subscription, SubscriptionMetrics, Topic

GONE, SETTLED, STALE = 0, 1, 2
SOUGHT = "the subscription was sought elsewhere before the reprocessed message was settled"
DEFAULTS = {
    "max_delivery_attempts": 5,
    "backoff_min_seconds": 5,
    "backoff_max_seconds": 300,
    "ack_deadline_seconds": 60,
}
"""Of the settings of a server."""

Filter = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Stored:
    payload: bytes
    attributes: bytes | None
    created_at: datetime


@dataclass(slots=True)
class Lease:
    token: int
    expires_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Dead:
    died_at: datetime
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    position: int
    lease: Lease


@dataclass(slots=True)
class Log:
    """A topic; position 1 is the first message."""

    key: int
    topic: Topic
    messages: list[Stored] = field(default_factory=list)
    keys: dict[str, tuple[bytes, list[str]]] = field(default_factory=dict)

    def id_of(self, position: int) -> str:
        return MessageIds(self.key, self.at(position).created_at).at(position)

    def at(self, position: int) -> Stored:
        return self.messages[position - 1]

    def before(self, time: datetime) -> int:
        """The position after which the first message from then on comes."""
        return sum(message.created_at < time for message in self.messages)


@dataclass(slots=True)
class Cursor:
    """A subscription: where it has read to, and what is with consumers, waiting or dead."""

    log: Log
    subscription: Subscription
    position: int
    wanted: Filter | None = None
    routed: int = 0
    purged: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    waiting: dict[int, tuple[datetime, int]] = field(default_factory=dict)
    dead: dict[int, Dead] = field(default_factory=dict)
    revived: set[int] = field(default_factory=set)

    def matches(self, position: int) -> bool:
        return matches(self.wanted, self.log.at(position).payload)

    def ahead(self) -> list[int]:
        return [p for p in range(self.position + 1, len(self.log.messages) + 1) if self.matches(p)]

    def metrics(self) -> SubscriptionMetrics:
        waiting, leased, dead = len(self.waiting), len(self.leases), len(self.dead)
        return SubscriptionMetrics(
            subscription_id=self.subscription.id,
            available=len(self.ahead()) + waiting,
            delivered=leased,
            acked=self.routed - waiting - leased - dead - self.purged,
            dlq=dead,
            estimated=False,
        )

    def claim(self, limit: int, now: datetime) -> list[Claimed]:
        due = sorted((due_at, position) for position, (due_at, _) in self.waiting.items() if due_at <= now)
        taken = [(position, self.waiting.pop(position)[1] + 1) for _, position in due[:limit]]
        fresh = self.ahead()
        ahead = fresh[: limit - len(taken)]
        self.routed += len(ahead)
        self.position = len(self.log.messages) if len(ahead) == len(fresh) else (ahead or [self.position])[-1]
        token = secrets.randbits(63)
        expires_at = now + timedelta(seconds=self.subscription.ack_deadline_seconds)
        claimed = []
        for position, attempts in [*taken, *((position, 1) for position in ahead)]:
            lease = self.leases[position] = Lease(token, expires_at, attempts)
            claimed.append(Claimed(position, lease))
        return claimed

    def settle(self, ids: Sequence[str], *, ends: bool = True) -> tuple[list[int], list[tuple[int, Lease]]]:
        """What each id does, and the leases that it concerns, each once."""
        outcomes = [GONE] * len(ids)
        held: dict[int, Lease] = {}
        for one in parse_targets(ids, self.log.key).singly():
            if self._holds(one):
                held[one.position] = self.leases[one.position]
                outcomes[one.place] = SETTLED
            elif one.position in self.leases:
                outcomes[one.place] = STALE
        if ends:
            for position in held:
                del self.leases[position]
        return outcomes, list(held.items())

    def _holds(self, one: Target) -> bool:
        lease = self.leases.get(one.position)
        if lease is None:
            return False
        return (
            lease.token == one.token
            if one.token is not None
            else self.log.at(one.position).created_at == one.created_at
        )

    def done(self, position: int) -> None:
        self.revived.discard(position)

    def fail(self, position: int, attempts: int, delay: int | None, now: datetime, cause: str) -> None:
        settings = self.subscription
        if attempts >= settings.max_delivery_attempts:
            self.die(
                position, attempts, f"{cause} on delivery attempt {attempts} of {settings.max_delivery_attempts}", now
            )
            return
        if delay is None:
            doubled = settings.backoff_min_seconds * 2 ** max(attempts - 1, 0)
            delay = min(settings.backoff_max_seconds, doubled)
        self.waiting[position] = (now + timedelta(seconds=delay), attempts)

    def die(self, position: int, attempts: int, reason: str, now: datetime) -> None:
        self.revived.discard(position)
        self.purged += position in self.dead
        self.dead[position] = Dead(now, attempts, reason)

    def expire(self, now: datetime) -> None:
        expired = [(position, lease) for position, lease in self.leases.items() if lease.expires_at <= now]
        for position, lease in sorted(expired, key=lambda one: (one[1].expires_at, one[0])):
            del self.leases[position]
            self.fail(position, lease.attempts, None, now, "lease expired")

    def dead_among(self, targets: Targets) -> list[int]:
        named = ((one.position, one.created_at) for one in targets.singly())
        return sorted({p for p, time in named if p in self.dead and self.log.at(p).created_at == time})

    def reprocess(self, targets: Targets, now: datetime) -> list[int]:
        moved = [p for p in self.dead_among(targets) if p <= self.position or self.matches(p)]
        for position in moved:
            del self.dead[position]
            if position > self.position or position in self.leases or position in self.waiting:
                self.purged += 1
            else:
                self.revived.add(position)
                self.waiting[position] = (now, 0)
        return moved

    def purge(self, targets: Targets) -> list[int]:
        purged = self.dead_among(targets)
        for position in purged:
            del self.dead[position]
        self.purged += len(purged)
        return purged

    def seek(self, position: int, now: datetime) -> None:
        self.routed -= len(self.leases) + len(self.waiting)
        for revived in self.revived - self.dead.keys():
            self.dead[revived] = Dead(now, 0, SOUGHT)
            self.routed += 1
        self.leases.clear()
        self.waiting.clear()
        self.revived.clear()
        self.position = max(position, 0)


class Store:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.logs: dict[str, Log] = {}
        self.cursors: dict[str, Cursor] = {}
        self._last_key = 0

    def advance(self, seconds: float) -> None:
        """Leases whose time is over end now."""
        self.now += timedelta(seconds=seconds)
        for cursor in self.cursors.values():
            cursor.expire(self.now)

    def log(self, topic_id: str) -> Log:
        if topic_id not in self.logs:
            raise NotFound(f'topic "{topic_id}" does not exist')
        return self.logs[topic_id]

    def cursor(self, subscription_id: str) -> Cursor:
        if subscription_id not in self.cursors:
            raise NotFound(f'subscription "{subscription_id}" does not exist')
        return self.cursors[subscription_id]

    def create_topic(self, topic_id: str, retention_seconds: int | None) -> Topic:
        if topic_id in self.logs:
            raise AlreadyExists(f'topic "{topic_id}" already exists')
        self._last_key += 1
        topic = Topic(id=topic_id, created_at=self.now, retention_seconds=retention_seconds)
        self.logs[topic_id] = Log(self._last_key, topic)
        return topic

    def delete_topic(self, topic_id: str) -> None:
        log = self.log(topic_id)
        del self.logs[topic_id]
        self.cursors = {id_: cursor for id_, cursor in self.cursors.items() if cursor.log is not log}

    def publish(self, topic_id: str, payloads: Sequence[bytes], attributes: Iterable[bytes | None]) -> list[str]:
        log = self.log(topic_id)
        created_at = self.now.replace(microsecond=self.now.microsecond // 1000 * 1000)
        first = len(log.messages) + 1
        log.messages += (Stored(payload, one, created_at) for payload, one in zip(payloads, attributes, strict=True))
        return [log.id_of(position) for position in range(first, len(log.messages) + 1)]

    def create_subscription(self, new: NewSubscription, wanted: Filter | None) -> Subscription:
        log = self.log(new.topic_id)
        if new.id in self.cursors:
            raise AlreadyExists(f'subscription "{new.id}" already exists')
        settings = {name: _given(getattr(new, name), default) for name, default in DEFAULTS.items()}
        if new.backoff_max_seconds is None:
            settings["backoff_max_seconds"] = max(settings["backoff_max_seconds"], settings["backoff_min_seconds"])
        subscription = Subscription(
            id=new.id, topic_id=new.topic_id, filter=new.filter or None, created_at=self.now, **settings
        )
        _check_backoff(subscription)
        self.cursors[new.id] = Cursor(log, subscription, self._position(log, new.start_from), wanted)
        return subscription

    def update_subscription(
        self, subscription_id: str, changed: ChangedSubscription, wanted: Filter | None
    ) -> Subscription:
        cursor = self.cursor(subscription_id)
        given = {name: getattr(changed, name) for name in DEFAULTS if getattr(changed, name) is not None}
        if "filter" in changed.model_fields_set:
            given["filter"] = changed.filter or None
        subscription = cursor.subscription.model_copy(update=given)
        _check_backoff(subscription)
        cursor.subscription = subscription
        if "filter" in given:
            cursor.wanted = wanted
        return subscription

    def seek(self, subscription_id: str, to: str | datetime | int) -> None:
        """To a position, which comes next, or as subscriptions start."""
        cursor = self.cursor(subscription_id)
        last = len(cursor.log.messages)
        position = min(max(to, 1), last + 1) - 1 if isinstance(to, int) else self._position(cursor.log, to)
        cursor.seek(position, self.now)

    def _position(self, log: Log, start: str | datetime) -> int:
        if isinstance(start, datetime):
            return log.before(start)
        return 0 if start == "earliest" else len(log.messages)


def matches(wanted: Filter | None, payload: bytes) -> bool:
    """Every named top-level field is there and equals one of its values, by JSON type and value."""
    if not wanted:
        return True
    document = json.loads(payload, parse_float=Decimal, parse_int=Decimal)
    return all(name in document and any(_equal(document[name], v) for v in values) for name, values in wanted.items())


def _equal(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and not isinstance(found, list | dict) and bool(found == wanted)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _check_backoff(subscription: Subscription) -> None:
    if subscription.backoff_max_seconds < subscription.backoff_min_seconds:
        raise InvalidRequest("backoff_max_seconds must not be below backoff_min_seconds")
