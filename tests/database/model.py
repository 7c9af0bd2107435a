"""What the storage promises, in plain Python: one topic, its subscriptions, and what every call does to them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from tests.database.store import GONE, MICROSECOND, SETTLED, STALE, Id, Metrics, Settings

Filter = dict[str, list[Any]]


def matches(wanted: Filter | None, payload: str) -> bool:
    """Every named top-level field is there and equals one of its values, by JSON type and value."""
    if not wanted:
        return True
    document = json.loads(payload, parse_float=Decimal, parse_int=Decimal)
    return isinstance(document, dict) and all(
        name in document and any(equal(document[name], value) for value in values) for name, values in wanted.items()
    )


def equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, str) or isinstance(wanted, str):
        return type(found) is type(wanted) and bool(found == wanted)
    if isinstance(wanted, float):
        wanted = Decimal(repr(wanted))
    return isinstance(found, Decimal) and bool(found == wanted)


def size(payload: str) -> int:
    """pg_column_size of a short stored text: one byte says how long it is."""
    length = len(payload.encode())
    assert length < 127
    return length + 1


class Message(NamedTuple):
    payload: str
    created_at: datetime


@dataclass
class Lease:
    token: int
    expires_at: datetime
    attempts: int
    consumer_id: str
    revived: bool


class Waiting(NamedTuple):
    due_at: datetime
    position: int
    attempts: int


@dataclass
class Dead:
    message: Message
    died_at: datetime
    attempts: int
    reason: str


class Delivery(NamedTuple):
    position: int
    attempts: int
    message: Message


@dataclass
class Subscription:
    topic: "Topic"
    settings: Settings
    position: int
    floor: datetime | None = None
    routed: int = 0
    purged: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    dead: dict[int, Dead] = field(default_factory=dict)
    revived: dict[int, Message] = field(default_factory=dict)

    @property
    def filter(self) -> Filter | None:
        return json.loads(self.settings.filter or "{}") or None

    def ahead(self) -> list[int]:
        after = range(self.position + 1, self.topic.last + 1)
        return [position for position in after if matches(self.filter, self.topic.messages[position].payload)]

    def metrics(self) -> Metrics:
        waiting, leased, dead = len(self.waiting), len(self.leases), len(self.dead)
        acked = self.routed - waiting - leased - dead - self.purged
        oldest = self.topic.messages.get(self.position + 1)
        return Metrics(
            len(self.ahead()), waiting, leased, dead, acked, False, None if oldest is None else oldest.created_at
        )

    def claim(self, limit: int, now: datetime, max_bytes: int, scan_rows: int) -> list[Delivery]:
        """The caller adds the leases, as only it knows their token."""
        taken, used = self._claim_waiting(limit, now, max_bytes)
        if len(taken) < limit and used < max_bytes:
            taken += self._claim_ahead(limit - len(taken), max_bytes - used, scan_rows, first=not taken)
        return taken

    def _claim_waiting(self, limit: int, now: datetime, max_bytes: int) -> tuple[list[Delivery], int]:
        taken: list[Delivery] = []
        used = 0
        for waiting in sorted(w for w in self.waiting if w.due_at <= now)[:limit]:
            message = self.topic.messages.get(waiting.position) or self.revived[waiting.position]
            if taken and used + size(message.payload) > max_bytes:
                break
            used += size(message.payload)
            taken.append(Delivery(waiting.position, waiting.attempts + 1, message))
            self.waiting.remove(waiting)
            self.floor = waiting.due_at
        return taken, used

    def _claim_ahead(self, limit: int, max_bytes: int, scan_rows: int, *, first: bool) -> list[Delivery]:
        start = self.position
        until = self.topic.last if self.filter is None else min(self.topic.last, start + scan_rows)
        found = [position for position in self.ahead() if position <= until]
        if len(found) >= limit:
            until = found[limit - 1]
        taken: list[Delivery] = []
        used = 0
        for position in found[:limit]:
            message = self.topic.messages[position]
            if used + size(message.payload) > max_bytes and (taken or not first):
                until = taken[-1].position if taken else start
                break
            used += size(message.payload)
            taken.append(Delivery(position, 1, message))
        self.position = until
        self.routed += len(taken)
        return taken

    def lease(self, deliveries: Sequence[Delivery], consumers: Sequence[str], token: int, now: datetime) -> None:
        expires_at = now + timedelta(seconds=self.settings.ack_deadline)
        for delivery, consumer_id in zip(deliveries, consumers, strict=False):
            revived = delivery.position in self.revived
            self.leases[delivery.position] = Lease(token, expires_at, delivery.attempts, consumer_id, revived)

    def holds(self, one: Id) -> bool:
        lease = self.leases.get(one.position)
        if lease is None:
            return False
        return one.token == lease.token if one.token is not None else one.created_at == self.created_at(one.position)

    def created_at(self, position: int) -> datetime:
        return (self.topic.messages.get(position) or self.revived[position]).created_at

    def outcomes(self, ids: Sequence[Id]) -> tuple[list[int], dict[int, int]]:
        """Per id what it does, and by position the index of the id that settled."""
        settled: dict[int, int] = {}
        for index, one in enumerate(ids):
            if self.holds(one):
                settled.setdefault(one.position, index)
        outcomes = []
        for one in ids:
            if self.holds(one):
                outcomes.append(SETTLED)
            else:
                outcomes.append(STALE if one.position in self.leases else GONE)
        return outcomes, settled

    def ack(self, ids: Sequence[Id]) -> list[int]:
        outcomes, settled = self.outcomes(ids)
        for position in settled:
            del self.leases[position]
            self.revived.pop(position, None)
        return outcomes

    def nack(self, ids: Sequence[Id], delays: Sequence[int | None] | None, now: datetime) -> list[int]:
        outcomes, settled = self.outcomes(ids)
        self.end(list(settled), now, "nacked", {p: delays[index] for p, index in settled.items()} if delays else {})
        return outcomes

    def reject(self, ids: Sequence[Id], reasons: Sequence[str], now: datetime) -> list[int]:
        outcomes, settled = self.outcomes(ids)
        for position, index in settled.items():
            self.die(position, self.leases.pop(position).attempts, reasons[index], now)
        return outcomes

    def extend(self, ids: Sequence[Id], seconds: int, now: datetime) -> list[int]:
        outcomes, settled = self.outcomes(ids)
        for position in settled:
            self.leases[position].expires_at = now + timedelta(seconds=seconds)
        return outcomes

    def give_back(self, positions: Sequence[int], token: int, now: datetime) -> int:
        given = {p: self.leases.pop(p) for p in set(positions) if p in self.leases and self.leases[p].token == token}
        for position, lease in given.items():
            self.retry(position, lease.attempts - 1, 0, now, "returned")
        return len(given)

    def release(self, limit: int, now: datetime) -> tuple[int, int]:
        expired = sorted((lease.expires_at, p) for p, lease in self.leases.items() if lease.expires_at <= now)
        dead = self.end([position for _, position in expired[:limit]], now, "lease expired", {})
        return min(limit, len(expired)), dead

    def end(self, positions: Sequence[int], now: datetime, cause: str, delays: dict[int, int | None]) -> int:
        return sum(
            self.retry(position, self.leases.pop(position).attempts, delays.get(position), now, cause)
            for position in positions
        )

    def retry(self, position: int, attempts: int, delay: int | None, now: datetime, cause: str) -> bool:
        """Whether it died."""
        settings = self.settings
        if attempts >= settings.max_attempts:
            self.die(position, attempts, f"{cause} on delivery attempt {attempts} of {settings.max_attempts}", now)
            return True
        if delay is None:
            delay = min(settings.backoff_max, settings.backoff_min * 2 ** max(attempts - 1, 0))
        due_at = now + timedelta(seconds=delay)
        if self.floor is not None:
            due_at = max(due_at, self.floor + MICROSECOND)
        self.waiting.append(Waiting(due_at, position, attempts))
        return False

    def die(self, position: int, attempts: int, reason: str, now: datetime) -> None:
        message = self.topic.messages.get(position) or self.revived[position]
        self.revived.pop(position, None)
        self.purged += position in self.dead
        self.dead[position] = Dead(message, now, attempts, reason)

    def dead_among(self, ids: Sequence[Id]) -> list[int]:
        return sorted(
            {i.position for i in ids if i.position in self.dead and self.dead[i.position].message[1] == i.created_at}
        )

    def reprocess(self, ids: Sequence[Id], now: datetime) -> list[int]:
        under_way = self.leases.keys() | {waiting.position for waiting in self.waiting} | set(self.ahead())
        moved = [p for p in self.dead_among(ids) if p <= self.position or p in under_way]
        for position in moved:
            dead = self.dead.pop(position)
            if position in under_way:
                self.purged += 1
            else:
                due_at = now if self.floor is None else max(now, self.floor + MICROSECOND)
                self.revived[position] = dead.message
                self.waiting.append(Waiting(due_at, position, 0))
        return moved

    def purge(self, ids: Sequence[Id]) -> list[int]:
        purged = self.dead_among(ids)
        for position in purged:
            del self.dead[position]
        self.purged += len(purged)
        return purged

    def seek(self, position: int, now: datetime) -> None:
        self.routed -= len(self.leases) + len(self.waiting)
        for revived, message in self.revived.items():
            reason = "the subscription was sought elsewhere before the reprocessed message was settled"
            self.dead[revived] = Dead(message, now, 0, reason)
            self.routed += 1
        self.leases, self.waiting, self.revived = {}, [], {}
        self.position = position

    def pins(self) -> list[int]:
        """Positions that trimming must leave, and the one after the cursor."""
        held = [*self.leases, *(waiting.position for waiting in self.waiting)]
        return [self.position + 1, *(position for position in held if position in self.topic.messages)]


@dataclass
class Topic:
    messages: dict[int, Message] = field(default_factory=dict)
    last: int = 0
    subscriptions: dict[str, Subscription] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.messages, default=1)

    def publish(self, payloads: Sequence[str], now: datetime) -> tuple[int, datetime]:
        created_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        if self.last:
            created_at = max(created_at, self.messages[self.last].created_at)
        first = self.last + 1
        for payload in payloads:
            self.last += 1
            self.messages[self.last] = Message(payload, created_at)
        return first, created_at

    def before(self, time: datetime) -> int:
        """The cursor position from which the first message created then or later comes next."""
        kept = sorted(self.messages)
        return next((position - 1 for position in kept if self.messages[position].created_at >= time), self.last)

    def subscribe(self, name: str, settings: Settings) -> Subscription:
        position = self.last
        if settings.start == "earliest":
            position = self.first - 1
        elif settings.start_time is not None:
            position = self.before(settings.start_time)
        self.subscriptions[name] = Subscription(self, replace(settings), position)
        return self.subscriptions[name]

    def trim(self, retention: int, limit: int, now: datetime) -> int:
        end = min([self.last, self.first + limit, self.before(now - timedelta(seconds=retention)) + 1])
        for subscription in self.subscriptions.values():
            end = min([end, *subscription.pins()])
        trimmed = [position for position in self.messages if position < end]
        for position in trimmed:
            del self.messages[position]
        return len(trimmed)
