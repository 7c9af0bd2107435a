"""A topic: the log of its messages, and what comes into it later."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.message_ids import MessageIds
from fastpubsub.models import (
    Topic,
    TopicFigures,
    TopicRates,
)
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.payloads import Expiry
from fastpubsub.testing.store.history import rates_of
from fastpubsub.testing.store.judging import Filter, passes
from fastpubsub.testing.store.records import (
    Delayed,
    Fired,
    RefusedCopy,
    Repeated,
    Stored,
)

NEVER = Expiry(None, None)

MOST_FIRED = 1000
"""Messages of a schedule at once, however much time passes."""


def expiry_time(expiry: Expiry, created_at: datetime) -> datetime | None:
    return expiry.expires_at if expiry.ttl_seconds is None else created_at + timedelta(seconds=expiry.ttl_seconds)


@dataclass(slots=True)
class Log:
    """A topic; position 1 is the first message. Its front may be trimmed, its last message stays."""

    key: int
    topic: Topic
    schema: PayloadSchema | None = None
    messages: dict[int, Stored] = field(default_factory=dict)
    last: int = 0
    keys: dict[str, tuple[bytes, list[str]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    past: dict[int, Counter[str]] = field(default_factory=dict)
    delayed: dict[int, Delayed] = field(default_factory=dict)
    fired: dict[int, Fired] = field(default_factory=dict)
    floor: datetime | None = None
    """All that was due up to here came."""

    refused: dict[int, RefusedCopy] = field(default_factory=dict)
    last_refused: int = 0
    schedules: dict[str, Repeated] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.messages, default=1)

    def publish(
        self,
        payloads: Sequence[bytes],
        attributes: Iterable[bytes | None],
        now: datetime,
        ordering_keys: Sequence[str | None] | None = None,
        expiries: Sequence[Expiry] | None = None,
    ) -> list[str]:
        """Appends messages, never earlier than the last one, and returns their ids."""
        created_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        if self.last:
            created_at = max(created_at, self.messages[self.last].created_at)
        ids = MessageIds(self.key, created_at)
        first = self.last + 1
        keys = ordering_keys or [None] * len(payloads)
        times = [expiry_time(one, created_at) for one in expiries or [NEVER] * len(payloads)]
        for payload, one, key, expires_at in zip(payloads, attributes, keys, times, strict=True):
            self.last += 1
            self.messages[self.last] = Stored(payload, one, created_at, key, expires_at)
        self.counts["published"] += len(payloads)
        return [ids.at(position) for position in range(first, self.last + 1)]

    def publish_or_refuse(
        self, payload: bytes, attributes: bytes | None, now: datetime, ordering_key: str | None
    ) -> None:
        """What was not checked before."""
        (misfit,) = [None] if self.schema is None else self.schema.misfits([payload])
        if misfit is None:
            self.publish([payload], [attributes], now, [ordering_key])
        else:
            self.last_refused += 1
            self.refused[self.last_refused] = RefusedCopy(Stored(payload, attributes, now, ordering_key), misfit.detail)

    def publish_refused(self, key: int, now: datetime) -> bool:
        """Whether it matches the schema by now."""
        if key not in self.refused:
            return False
        message = self.refused[key].message
        (misfit,) = [None] if self.schema is None else self.schema.misfits([message.payload])
        if misfit is not None:
            self.refused[key] = RefusedCopy(message, misfit.detail)
            return False
        del self.refused[key]
        self.publish([message.payload], [message.attributes], now, [message.ordering_key])
        return True

    def delay(self, key: int, due_at: datetime, message: Stored, now: datetime) -> None:
        """Nothing becomes due before the floor."""
        self.floor = self.floor or now
        self.delayed[key] = Delayed(max(due_at, self.floor + datetime.resolution), key, message)

    def move(self, key: int, due_at: datetime) -> Delayed:
        least = (self.floor or due_at) + datetime.resolution
        self.delayed[key] = self.delayed[key]._replace(due_at=max(due_at, least))
        return self.delayed[key]

    def publish_due(self, now: datetime, limit: int = sys.maxsize) -> int:
        """How many messages came."""
        due = sorted(one for one in self.delayed.values() if one.due_at <= now)[:limit]
        for one in due:
            del self.delayed[one.key]
            message = one.message
            expiry = Expiry(message.expires_at, message.ttl_seconds)
            self.publish([message.payload], [message.attributes], now, [message.ordering_key], [expiry])
            self.fired[one.key] = Fired(one.due_at, self.last)
            self.floor = one.due_at
        return len(due)

    def fire_due(self, now: datetime) -> None:
        """Publishes what schedules had at their times, up to MOST_FIRED of each."""
        due = [
            (time, id_)
            for id_, one in self.schedules.items()
            if one.schedule.next_at is not None
            for time in one.timetable.from_(one.schedule.next_at, now, MOST_FIRED)
        ]
        for time, id_ in sorted(due):
            self._fire_or_miss(self.schedules[id_], time, now)
        for one in {id_: self.schedules[id_] for _, id_ in due}.values():
            next_at = one.timetable.after(now, one.schedule.next_at or now)
            one.schedule = one.schedule.model_copy(update={"next_at": next_at})

    def _fire_or_miss(self, one: Repeated, time: datetime, now: datetime) -> None:
        try:
            if self.schema is not None:
                self.schema.check([one.message.payload])
        except InvalidRequest as error:
            changed = {"missed": one.schedule.missed + 1, "problem": error.detail}
            one.schedule = one.schedule.model_copy(update=changed)
        else:
            self.fire(one, time, now)

    def fire(self, one: Repeated, time: datetime, now: datetime) -> None:
        own = {} if one.message.attributes is None else json.loads(one.message.attributes)
        own |= {"schedule_id": one.schedule.id, "scheduled_at": f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        attributes = json.dumps(own, ensure_ascii=False).encode()
        (id_,) = self.publish([one.message.payload], [attributes], now, [one.message.ordering_key])
        fired = {"last_fired_at": self.messages[self.last].created_at, "last_message_id": id_, "problem": None}
        one.schedule = one.schedule.model_copy(update=fired | {"fired": one.schedule.fired + 1})

    def figures(self, subscriptions: int, now: datetime) -> TopicFigures:
        rates = TopicRates(**rates_of(self.past, now, TopicRates.model_fields))
        return TopicFigures(
            published=self.last,
            kept=len(self.messages),
            subscriptions=subscriptions,
            refused=len(self.refused) or None,
            rates=rates,
        )

    def id_of(self, position: int, message: Stored) -> str:
        return MessageIds(self.key, message.created_at).at(position)

    def matching(self, position: int, wanted: Filter | None) -> list[int]:
        """The positions after this one that a filter matches."""
        after = range(max(position + 1, self.first), self.last + 1)
        return [one for one in after if passes(wanted, self.messages[one])]

    def before(self, to: str | datetime | int) -> int:
        """The position before what is sought: the first message that is kept, a time, a position, or what comes."""
        if isinstance(to, datetime):
            return next((p - 1 for p, message in self.messages.items() if message.created_at >= to), self.last)
        if isinstance(to, int):
            return max(min(to, self.last + 1), self.first) - 1
        return self.first - 1 if to == "earliest" else self.last
