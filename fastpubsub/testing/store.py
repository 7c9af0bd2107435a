"""Stores messages in plain Python by the rules of PostgreSQL; the caller passes the time.

tests/database/test_model.py does random calls to it and to the database, and compares them after each.
"""

import json
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from fastpubsub import filters
from fastpubsub.exceptions import AlreadyExists, BacklogFull, InvalidRequest, NotFound
from fastpubsub.message_ids import MessageIds, Target
from fastpubsub.models import (
    ChangedSubscription,
    NewPush,
    NewSubscription,
    Schedule,
    Subscription,
    SubscriptionFigures,
    SubscriptionMetrics,
    SubscriptionRates,
    Topic,
    TopicFigures,
    TopicRates,
)
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.payloads import Expiry
from fastpubsub.searches import Search
from fastpubsub.timetables import Timetable

GONE, SETTLED, STALE = 0, 1, 2
DEAD_LETTER_ID = "dead_letter_message_id"
"""The attribute of a message that is the copy of a dead letter."""
MAX_ATTRIBUTE = 1024
KEPT_FAILURES = 20
"""Of a message."""

SOUGHT = "the subscription was sought elsewhere before the reprocessed message was settled"
DEFAULTS = {
    "max_delivery_attempts": 5,
    "backoff_min_seconds": 5,
    "backoff_max_seconds": 300,
    "ack_deadline_seconds": 60,
}
"""Of the settings of a server."""

LIMITS = ("max_in_flight", "rate_limit", "expire_after_seconds", "max_backlog")
"""Of which 0 is none."""

REMOVABLE = (*LIMITS, "dead_letter_topic", "fair_by")
"""Settings whose 0 or empty text is none."""

CHOSEN = ("on_expired", "on_dead_letter", "on_full")

NOTED_SECONDS = 120
"""What a server adds, because processes tell late which subscriptions are used."""

ROUNDING = 0.00001
"""Of a message: what the microseconds of a time are rounded by."""

Filter = dict[str, Any]

INTERVAL_SECONDS = 5
"""Of the history."""

MINUTE = 60

MOST_FIRED = 1000
"""Messages of a schedule at once, however much time passes."""

PUT_ASIDE = "put aside"
"""Why a key of an ordered subscription is due: nobody had its next message yet."""

FOREVER = datetime.max.replace(tzinfo=UTC)
"""When a key is due that a dead letter holds."""

EXPIRED = "expired"
"""Why a message that expired is a dead letter."""

BACKLOG_FULL = "backlog full"
"""Why a message is a dead letter that was too many."""

DROPPED_AT_ONCE = 1000

TURNS = 4
LOOKED_AT = 1000
STEP = 4096
"""What a claim of an ordered subscription takes at once: retries, messages of a key behind a filter, and of the log."""

LOOK_AHEAD = 64
"""Messages at which a claim of a fair subscription looks at least, to see who waits."""


class Stored(NamedTuple):
    """Of a delayed message `ttl_seconds` counts once it has come."""

    payload: bytes
    attributes: bytes | None
    created_at: datetime
    ordering_key: str | None = None
    expires_at: datetime | None = None
    ttl_seconds: int | None = None

    @property
    def size(self) -> int:
        """Counts the bytes as PostgreSQL does for a short text, which has one byte for its length."""
        return len(self.payload) + 1 + (len(self.attributes) + 1 if self.attributes else 0)


@dataclass(slots=True)
class Lease:
    token: int
    expires_at: datetime
    attempts: int
    leased_at: datetime
    consumer_id: str
    turn: int | None = None


class WaitingMessage(NamedTuple):
    due_at: datetime
    position: int
    attempts: int
    reason: str
    turn: int | None = None


class Failed(NamedTuple):
    """A delivery that failed."""

    failed_at: datetime
    delivery_attempt: int
    cause: str
    reason: str | None
    consumer_id: str


class Dead(NamedTuple):
    message: Stored
    died_at: datetime
    attempts: int
    reason: str


class Claimed(NamedTuple):
    position: int
    message: Stored
    lease: Lease


class Delayed(NamedTuple):
    """A message that comes later, with its number."""

    due_at: datetime
    key: int
    message: Stored


class RefusedCopy(NamedTuple):
    """Of a dead letter, `created_at` when it was refused, and why."""

    message: Stored
    reason: str


class Fired(NamedTuple):
    """Where a delayed message came."""

    due_at: datetime
    position: int


@dataclass(slots=True)
class Repeated:
    """A schedule, without its message, which is published as it was written."""

    schedule: Schedule
    message: Stored
    timetable: Timetable


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


class Passed(NamedTuple):
    """How a position came behind the cursor, whether a filter was in force then, and whether a seek came later."""

    state: str
    is_filtered: bool = False
    is_sought: bool = False


@dataclass(slots=True)
class Cursor:
    """A subscription: where it has read to, and what is with consumers, waiting or dead.

    No retry is due before `floor`, where the last claim ended. `revived` are reprocessed dead letters, which outlive
    the log. When it is ordered, `turns` has the busy keys, each with its turn: the last of its messages that anybody
    had. Those after it, up to `position`, are put aside, and `due` once nobody has the key. `parked` ones wait behind
    one of their turn that is leased or waits. When it is fair, all keys with something put aside are `due`, and
    `sequence` says whether the log or they come first.
    """

    log: Log
    subscription: Subscription
    position: int
    logs: dict[str, Log]
    wanted: Filter | None = None
    floor: datetime | None = None
    routed: int = 0
    filtered: int = 0
    purged: int = 0
    ttl_expired: int = 0
    dropped: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    waiting: list[WaitingMessage] = field(default_factory=list)
    dead: dict[int, Dead] = field(default_factory=dict)
    revived: dict[int, Stored] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    parked: list[WaitingMessage] = field(default_factory=list)
    due: list[WaitingMessage] = field(default_factory=list)
    failures: dict[int, list[Failed]] = field(default_factory=dict)
    passed: dict[int, Passed] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    past: dict[int, Counter[str]] = field(default_factory=dict)
    full_at: datetime | None = None
    sequence: int = 0

    @property
    def is_paused(self) -> bool:
        return self.subscription.is_paused

    def room(self, now: datetime) -> int:
        """How many more messages the limits let through."""
        most, rate = self.subscription.max_in_flight, self.subscription.rate_limit
        in_flight = sys.maxsize if most is None else max(most - len(self.leases), 0)
        return in_flight if rate is None else min(in_flight, max(int(self._bucket(rate, now) + ROUNDING), 0))

    def _bucket(self, rate: float, now: datetime) -> float:
        """How many messages are in it."""
        size = max(rate, 1.0)
        lacks = 0.0 if self.full_at is None else rate * max((self.full_at - now).total_seconds(), 0.0)
        return size if lacks > 2 * size else size - lacks

    def _take(self, messages: int, now: datetime) -> None:
        """Out of the bucket of the rate limit."""
        rate = self.subscription.rate_limit
        if rate is not None and messages:
            self.full_at = now + timedelta(seconds=(max(rate, 1.0) - self._bucket(rate, now) + messages) / rate)

    def pause(self, paused_at: datetime | None) -> None:
        """Without a time it is resumed."""
        if paused_at is None or not self.is_paused:
            changed = {"is_paused": paused_at is not None, "paused_at": paused_at}
            self.subscription = self.subscription.model_copy(update=changed)

    def use(self, now: datetime) -> None:
        """Somebody wants messages, so the time until it expires begins anew."""
        seconds = self.subscription.expire_after_seconds
        at = None if seconds is None or self.is_paused else now + timedelta(seconds=seconds + NOTED_SECONDS)
        if at != self.subscription.expires_at:
            self.subscription = self.subscription.model_copy(update={"expires_at": at})

    def is_expired(self, now: datetime) -> bool:
        at = self.subscription.expires_at
        return at is not None and at <= now and not self.leases

    def explain(self, position: int) -> tuple[str, bool]:
        """The state of a message, and whether a seek may have put it there."""
        if position in self.leases:
            return "leased", False
        if any(waiting.position == position for waiting in self.all_waiting):
            return "waiting", False
        if position in self.dead:
            return "dead", False
        if position > self.position or position in self.aside():
            return ("ahead" if position in self.ahead() else "filtered"), False
        passed = self.passed.get(position, Passed("before_subscription"))
        if passed.is_filtered and position not in self.log.messages:
            return "trimmed", passed.is_sought
        return passed.state, passed.is_sought or passed.state in ("skipped", "purged")

    def browse(self, state: str) -> list[tuple[int, dict[str, Any]]]:
        """The messages in a state, in their order, each with what belongs to the state."""
        if state == "leased":
            leased = sorted(self.leases.items())
            return [(p, {"delivery_attempts": one.attempts} | of_lease(one)) for p, one in leased]
        if state == "waiting":
            return [(one.position, of_waiting(one)) for one in sorted(self.waiting, key=lambda one: one[:2])]
        if state == "dead":
            dead = sorted(self.dead.items())
            return [
                (p, {"delivery_attempts": one.attempts, "died_at": one.died_at, "reason": one.reason})
                for p, one in dead
            ]
        ahead = self.log.matching(self.position, self.wanted)
        return [(position, {"delivery_attempts": 0}) for position in ahead]

    def noted(self, state: str, position: int) -> dict[str, Any]:
        """What belongs to a message that is leased, waiting or dead."""
        parked = {one.position: of_waiting(one) for one in self.parked}
        return dict(self.browse(state)).get(position) or parked[position]

    def is_too_late(self, position: int, now: datetime) -> bool:
        """A reprocessed dead letter does not expire."""
        return self.expired_at(position, now) is not None

    def expired_at(self, position: int, now: datetime) -> datetime | None:
        message = None if position in self.revived else self.log.messages.get(position)
        expires_at = None if message is None else message.expires_at
        return None if expires_at is None or expires_at > now else expires_at

    def expire(self, expired: Sequence[tuple[int, int]], now: datetime) -> None:
        """Positions and attempts of what a claim has passed, because it expired."""
        if self.subscription.on_expired == "drop":
            self.ttl_expired += len(expired)
            return
        for position, attempts in expired:
            self._die(position, attempts, EXPIRED, now)

    @property
    def backlog_room(self) -> int | None:
        """How many more messages may be published; None without a limit."""
        most = self.subscription.max_backlog
        if most is None or self.subscription.on_full != "reject":
            return None
        return most - (self.log.last - self.position)

    def drop_backlog(self, now: datetime, limit: int = DROPPED_AT_ONCE) -> tuple[int, int, bool]:
        """How many messages were dropped, how many died, and whether there are more."""
        most, on_full = self.subscription.max_backlog, self.subscription.on_full
        end = self.position if most is None or on_full == "reject" else self.log.last - most
        if end <= self.position:
            return 0, 0, False
        found = [position for position in self.log.matching(self.position, self.wanted) if position <= end]
        until = end
        if len(found) >= limit and (self.wanted is not None or on_full == "dead_letter"):
            found, until = found[:limit], found[limit - 1]
        self._pass(until, found)
        if on_full == "drop_oldest":
            self.dropped += len(found)
            return len(found), 0, until < end
        for position in found:
            self._die(position, 0, BACKLOG_FULL, now)
        return 0, len(found), until < end

    def message(self, position: int) -> Stored:
        return self.log.messages.get(position) or self.revived[position]

    def is_ready(self, now: datetime) -> bool:
        """Whether a claim would find something to do."""
        due = self._due(self._soon(now) if self.subscription.fair_by else now)
        return bool(due) or bool(self.log.matching(self.position, self.wanted))

    def ahead(self) -> list[int]:
        aside = [one for one in self.aside() if self._passes(one)]
        return aside + self.log.matching(self.position, self.wanted)

    def aside(self) -> list[int]:
        """What was put aside, whether it passes the filter or not."""
        return sorted(position for key, turn in self.turns.items() for position in self._after(key, turn))

    def _after(self, key: str, turn: int) -> list[int]:
        after = range(max(turn + 1, self.log.first), self.position + 1)
        return [one for one in after if self.log.messages[one].ordering_key == key]

    def _key(self, position: int) -> str:
        return self.log.messages[position].ordering_key or ""

    def _passes(self, position: int) -> bool:
        return passes(self.wanted, self.log.messages[position])

    @property
    def all_waiting(self) -> list[WaitingMessage]:
        return self.waiting + [one for one in self.parked if one.reason != PUT_ASIDE]

    def holder_of(self, position: int) -> int | None:
        """The dead letter that holds the key of a message, which may be itself."""
        held = [one for one in self.due + self.parked if one.due_at == FOREVER]
        if position in self.dead:
            return next((one.position for one in held if one.position == position), None)
        if position not in self.aside():
            return None
        stopped = (one.position for one in self.due if one in held and one.position < position)
        return next((one for one in stopped if self._key(one) == self._key(position)), None)

    @property
    def held_keys(self) -> int:
        return sum(one.due_at == FOREVER for one in self.due)

    @property
    def unsettled(self) -> int:
        """The oldest message that is ahead, leased or waiting and still in the log; the next one when there is none."""
        held = [*self.leases, *(one.position for one in self.waiting + self.due)]
        return min([self.position + 1, *(position for position in held if position in self.log.messages)])

    @property
    def acked(self) -> int:
        gone = self.purged + self.ttl_expired + self.dropped
        return self.routed - len(self.all_waiting) - len(self.leases) - len(self.dead) - gone

    def metrics(self) -> SubscriptionMetrics:
        return SubscriptionMetrics(
            subscription_id=self.subscription.id,
            available=len(self.ahead()) + len(self.all_waiting),
            delivered=len(self.leases),
            acked=self.acked,
            dlq=len(self.dead),
            estimated=False,
            filtered=self.filtered,
            ttl_expired=self.ttl_expired or None,
            held_keys=self.held_keys or None,
            dropped=self.dropped or None,
            paused=self.is_paused or None,
        )

    def figures(self, now: datetime) -> SubscriptionFigures:
        def age(positions: Iterable[int]) -> float | None:
            first = min(positions, default=None)
            return None if first is None else (now - self.message(first).created_at).total_seconds()

        return SubscriptionFigures(
            **self.metrics().model_dump(),
            ahead=len(self.ahead()),
            waiting=len(self.all_waiting),
            ahead_is_estimated=False,
            oldest_ahead_seconds=age(self.ahead()),
            oldest_leased_seconds=age(self.leases),
            oldest_waiting_seconds=age(one.position for one in self.all_waiting),
            rates=SubscriptionRates(**rates_of(self.past, now, SubscriptionRates.model_fields)),
        )

    def claim(
        self,
        limit: int,
        now: datetime,
        *,
        consumer_id: str = "",
        token: int | None = None,
        max_bytes: int = sys.maxsize,
        scan_rows: int = sys.maxsize,
        is_first: bool = True,
    ) -> list[Claimed]:
        """Claims at least one message if there is one, however large; looks at `scan_rows` of the log."""
        self.use(now)
        if self.is_paused:
            return []
        limit = min(limit, self.room(now))
        if limit == 0:
            return []
        expired: list[tuple[int, int]] = []
        if self.subscription.ordered:
            in_order = self._claim_in_order(limit, now, max_bytes, expired, is_first=is_first)
        elif self.subscription.fair_by:
            in_order = self._take_fairly(limit, now, max_bytes, expired)
        else:
            taken = self._claim_waiting(limit, now, max_bytes)
            left = max_bytes - sum(message.size for _, message, _ in taken)
            is_first = not taken
            taken = self._living(taken, expired, now)
            if len(taken) < limit and left > 0:
                taken += self._claim_living(limit - len(taken), left, scan_rows, expired, now, is_first=is_first)
            in_order = [(position, n, None) for position, _, n in taken]
        self.expire(expired, now)
        token = secrets.randbits(63) if token is None else token
        expires_at = now + timedelta(seconds=self.subscription.ack_deadline_seconds)
        claimed = [
            Claimed(position, self.message(position), Lease(token, expires_at, n, now, consumer_id, turn))
            for position, n, turn in in_order
        ]
        self.leases |= {one.position: one.lease for one in claimed}
        self._take(len(claimed), now)
        self.counts["delivered"] += len(claimed)
        return claimed

    def _claim_waiting(self, limit: int, now: datetime, max_bytes: int) -> list[tuple[int, Stored, int]]:
        taken: list[tuple[int, Stored, int]] = []
        for waiting in sorted(one for one in self.waiting if one.due_at <= now)[:limit]:
            message = self.message(waiting.position)
            max_bytes -= message.size
            if taken and max_bytes < 0:
                break
            taken.append((waiting.position, message, waiting.attempts + 1))
            self.waiting.remove(waiting)
            self.floor = waiting.due_at
        return taken

    def _living(
        self, taken: Sequence[tuple[int, Stored, int]], expired: list[tuple[int, int]], now: datetime
    ) -> list[tuple[int, Stored, int]]:
        """Without those that expired, which it adds to `expired`."""
        expired += [(position, n - 1) for position, _, n in taken if self.is_too_late(position, now)]
        return [one for one in taken if not self.is_too_late(one[0], now)]

    def _claim_living(
        self,
        limit: int,
        max_bytes: int,
        scan_rows: int,
        expired: list[tuple[int, int]],
        now: datetime,
        *,
        is_first: bool,
    ) -> list[tuple[int, Stored, int]]:
        """Goes on past what expired, as long as that is all that it finds."""
        while True:
            found = self._claim_ahead(limit, max_bytes, scan_rows, is_first=is_first)
            living = self._living(found, expired, now)
            if living or not found or self.position >= self.log.last:
                return living
            self._pass_expired(scan_rows, expired, now)
            if self.position >= self.log.last:
                return []

    def _pass_expired(self, scan_rows: int, expired: list[tuple[int, int]], now: datetime) -> None:
        """What comes next and has expired; with a filter, of what matches."""
        until = min(self.log.last, self.position + (LOOKED_AT if self.wanted is None else scan_rows))
        ahead = [position for position in self.log.matching(self.position, self.wanted) if position <= until]
        living = next((position for position in ahead[:LOOKED_AT] if not self.is_too_late(position, now)), None)
        if living is not None:
            until = living - 1
        elif len(ahead) >= LOOKED_AT:
            until = ahead[LOOKED_AT - 1]
        passed = [position for position in ahead if position <= until]
        self._pass(until, passed)
        expired += [(position, 0) for position in passed]

    def _claim_ahead(
        self, limit: int, max_bytes: int, scan_rows: int, *, is_first: bool
    ) -> list[tuple[int, Stored, int]]:
        until = self.log.last if self.wanted is None else min(self.log.last, self.position + scan_rows)
        found = [position for position in self.ahead() if position <= until]
        if len(found) >= limit:
            until = found[limit - 1]
        taken: list[tuple[int, Stored, int]] = []
        for position in found[:limit]:
            message = self.log.messages[position]
            max_bytes -= message.size
            if max_bytes < 0 and (taken or not is_first):
                until = taken[-1][0] if taken else self.position
                break
            taken.append((position, message, 1))
        self._pass(until, [position for position, *_ in taken])
        return taken

    def _pass(self, until: int, matching: Sequence[int]) -> None:
        """Moves the cursor; what does not match was kept out by the filter."""
        for position in range(self.position + 1, until + 1):
            state = "settled" if position in matching else "filtered"
            self.passed[position] = Passed(state, self.wanted is not None)
        self.filtered += until - self.position - len(matching)
        self.counts["filtered"] += until - self.position - len(matching)
        self.position = until
        self.routed += len(matching)

    def _claim_in_order(
        self, limit: int, now: datetime, max_bytes: int, expired: list[tuple[int, int]], *, is_first: bool
    ) -> list[tuple[int, int, int | None]]:
        """Positions, attempts and turns, as the procedure of that name takes them for one consumer."""
        taken: list[tuple[int, int, int | None]] = []
        left = max_bytes
        while len(taken) < limit and left > 0:
            due = self._due(now)[: min(limit - len(taken), TURNS)]
            if not due:
                break
            part = self._take_turns(due, limit - len(taken), left, now, expired)
            taken += part
            left -= self._size(part)
        if len(taken) < limit and left > 0 and self.position < self.log.last:
            taken += self._read_in_order(limit - len(taken), left, now, expired, is_first=is_first and not taken)
        return taken

    def _size(self, taken: Iterable[tuple[int, int, int | None]]) -> int:
        return sum(self.message(position).size for position, *_ in taken)

    def _take_turns(
        self, due: list[WaitingMessage], limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        taken: list[tuple[int, int, int | None]] = []
        passed = []
        for one in due:
            if taken and self._size(taken) + self.message(one.position).size > max_bytes:
                break
            (self.due if one.reason == PUT_ASIDE else self.waiting).remove(one)
            self.floor = one.due_at
            if one.turn is None:
                if self.is_too_late(one.position, now):
                    expired.append((one.position, one.attempts))
                else:
                    taken.append((one.position, one.attempts + 1, None))
                continue
            key = self._key(one.position)
            part = self._continue(one, max(limit // len(due), 1), max_bytes - self._size(taken), now, expired)
            taken += [(position, attempts, self.turns[key]) for position, attempts in part]
            if not part or self.subscription.fair_by:
                passed.append(self.turns[key])
        self._free(passed, now if self.subscription.fair_by else now + datetime.resolution)
        return taken

    def _due(self, now: datetime) -> list[WaitingMessage]:
        return sorted((one for one in self.waiting + self.due if one.due_at <= now), key=lambda one: one[:2])

    def _soon(self, now: datetime) -> datetime:
        """Now, and after what the last claim took: keys of a fair subscription stand there in line again."""
        return now if self.floor is None else max(now, self.floor + datetime.resolution)

    def _take_fairly(
        self, limit: int, now: datetime, max_bytes: int, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        """Positions and attempts, as the procedure of that name takes them: what is new, then those in line."""
        reserved = min(len(self._due(self._soon(now))), (limit + self.sequence % 2) // 2)
        self.sequence += 1
        new = self._read_fairly(limit - reserved, max_bytes, now, expired) if limit > reserved else []
        taken: list[tuple[int, int, int | None]] = []
        looked_at = self.filtered + LOOKED_AT
        while (left := limit - len(new) - len(taken)) and self.filtered < looked_at and len(expired) < LOOKED_AT:
            more = max_bytes - self._size(taken + new)
            soon = self._soon(now)
            if more <= 0 or not (due := self._due(soon)[:left]):
                break
            taken += [(position, n, None) for position, n, _ in self._take_turns(due, left, more, soon, expired)]
        return sorted(new + taken)

    def _read_fairly(
        self, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int, int | None]]:
        """One message of each key that is not busy; the others of it are put aside."""
        taken: list[int] = []
        soon, step = self._soon(now), max(limit, LOOK_AHEAD)
        while self.position < self.log.last:
            end = min(self.log.last, self.position + step)
            turns = self._read_stretch(end, limit, max_bytes, taken, expired, now)
            for key, turn in turns.items():
                if after := self._after(key, turn):
                    self.turns[key] = turn
                    self.due.append(WaitingMessage(soon, after[0], 0, PUT_ASIDE, turn))
            if self.position < end or len(taken) >= limit or len(expired) >= LOOKED_AT:
                break
            step = min(step * 2, STEP)
        return [(position, 1, None) for position in taken]

    def _read_stretch(
        self,
        end: int,
        limit: int,
        max_bytes: int,
        taken: list[int],
        expired: list[tuple[int, int]],
        now: datetime,
    ) -> dict[str, int]:
        """Returns which of its messages each key had."""
        turns: dict[str, int] = {}
        for position in range(self.position + 1, end + 1):
            message = self.log.messages[position]
            passes = self._passes(position)
            if message.ordering_key not in self.turns and message.ordering_key not in turns:
                if passes and not self.is_too_late(position, now):
                    size = sum(self.message(one).size for one in [*taken, position])
                    if len(taken) >= limit or (taken and size > max_bytes):
                        break
                    taken.append(position)
                    if message.ordering_key is not None:
                        turns[message.ordering_key] = position
                elif passes:
                    expired.append((position, 0))
                self.routed += passes
                self.filtered += not passes
                self.counts["filtered"] += not passes
            self.passed[position] = Passed("settled" if passes else "filtered", self.wanted is not None)
            self.position = position
        return turns

    def _continue(
        self, first: WaitingMessage, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """The messages of a turn that follow, and sets its key to the turn that they make."""
        turn, key = first.turn or 0, self._key(first.position)
        taken: list[tuple[int, int]] = []
        size = 0
        if first.reason != PUT_ASIDE:
            size = self._give(first.position, first.attempts, taken, expired, now)
            for one in sorted((one for one in self.parked if one.turn == turn), key=lambda one: one.position):
                more = self.message(one.position).size
                if one.due_at > now or len(taken) >= limit or (taken and size + more > max_bytes):
                    return taken
                self.parked.remove(one)
                size += self._give(one.position, one.attempts, taken, expired, now)
        while True:
            turn = self.turns[key]
            self._take_aside(key, limit, max_bytes - size, taken, expired, now)
            if self.turns[key] == turn or taken or self.wanted is not None:
                return taken

    def _take_aside(
        self,
        key: str,
        limit: int,
        max_bytes: int,
        taken: list[tuple[int, int]],
        expired: list[tuple[int, int]],
        now: datetime,
    ) -> None:
        """The next of what was put aside."""
        most = limit - len(taken) if self.wanted is None else LOOKED_AT
        for position in self._after(key, self.turns[key])[:most]:
            if len(taken) >= limit or (taken and self.message(position).size > max_bytes):
                break
            self.turns[key] = position
            if self._passes(position):
                self.routed += 1
                max_bytes -= self._give(position, 0, taken, expired, now)
            else:
                self.filtered += 1
                self.counts["filtered"] += 1

    def _give(
        self, position: int, attempts: int, taken: list[tuple[int, int]], expired: list[tuple[int, int]], now: datetime
    ) -> int:
        """Adds it to `taken`, with this attempt, and returns its size; or to `expired`."""
        if self.is_too_late(position, now):
            expired.append((position, attempts))
            return 0
        taken.append((position, attempts + 1))
        return self.message(position).size

    def _read_in_order(
        self, limit: int, max_bytes: int, now: datetime, expired: list[tuple[int, int]], *, is_first: bool
    ) -> list[tuple[int, int, int | None]]:
        taken: list[tuple[int, int, int | None]] = []
        step = limit
        while True:
            size = self._size(taken)
            stretch = range(self.position + 1, min(self.log.last, self.position + step) + 1)
            keys = {position: self.log.messages[position].ordering_key for position in stretch}
            busy = {position for position, key in keys.items() if key in self.turns}
            passing = [position for position in stretch if position not in busy and self._passes(position)]
            found = [position for position in passing if not self.is_too_late(position, now)]
            fit: list[int] = []
            for position in found[: limit - len(taken)]:
                size += self.message(position).size
                if size > max_bytes and (fit or taken or not is_first):
                    break
                fit.append(position)
            is_full = len(fit) < len(found)
            end = stretch[-1]
            if is_full or len(fit) == limit - len(taken):
                end = fit[-1] if fit else self.position
            passed = [position for position in stretch if position <= end]
            tails = {key: position for position in passed if (key := keys[position]) is not None}
            for position in passed:
                state = "settled" if self._passes(position) else "filtered"
                self.passed[position] = Passed(state, self.wanted is not None)
            taken += [(one, 1, tails.get(keys[one] or "") if keys[one] is not None else None) for one in fit]
            self.turns |= {key: tails[key] for one in fit if (key := keys[one]) is not None}
            late = [position for position in passing if position <= end and position not in found]
            expired += [(position, 0) for position in late]
            missed = sum(1 for position in passed if position not in busy) - len(fit) - len(late)
            self.filtered += missed
            self.counts["filtered"] += missed
            self.position = end
            self.routed += len(fit) + len(late)
            if is_full or len(taken) >= limit or end >= self.log.last:
                return taken
            step = min(max(step, 64) * 2, STEP)

    def _free(self, turns: Iterable[int | None], now: datetime) -> None:
        """Nothing of these turns is leased any more, or it is: a key goes on, or is free."""
        floor = datetime.min.replace(tzinfo=UTC) if self.floor is None else self.floor + datetime.resolution
        leased = {lease.turn for lease in self.leases.values()}
        for turn in {turn for turn in turns if turn is not None and turn not in leased}:
            parked = sorted((one for one in self.parked if one.turn == turn), key=lambda one: one.position)
            if parked:
                self.parked.remove(parked[0])
                goes_on = self.due if parked[0].reason == PUT_ASIDE else self.waiting
                goes_on.append(parked[0]._replace(due_at=max(parked[0].due_at, floor)))
            elif after := self._after(self._key(turn), turn):
                self.due.append(WaitingMessage(max(now, floor), after[0], 0, PUT_ASIDE, turn))
            else:
                del self.turns[self._key(turn)]

    def _park_after(self, turns: Iterable[int | None], now: datetime) -> None:
        """Gives back what is leased after the first parked message of a turn, as if it had not been delivered."""
        for turn in {turn for turn in turns if turn is not None}:
            first = min((one.position for one in self.parked if one.turn == turn), default=sys.maxsize)
            for position in [p for p, lease in self.leases.items() if lease.turn == turn and p > first]:
                attempts = self.leases.pop(position).attempts - 1
                self.parked.append(WaitingMessage(now, position, attempts, "returned", turn))

    def _end(self, positions: Iterable[int]) -> list[tuple[int, Lease]]:
        return [(position, self.leases.pop(position)) for position in positions]

    def holds(self, one: Target) -> bool:
        lease = self.leases.get(one.position)
        if lease is None:
            return False
        if one.token is not None:
            return one.token == lease.token
        return one.created_at == self.message(one.position).created_at

    def _settle(self, targets: Sequence[Target]) -> tuple[list[int], dict[int, int]]:
        """Returns the outcome of each, and by position the first of them that settles it."""
        held = [self.holds(one) for one in targets]
        settled: dict[int, int] = {}
        for index, one in enumerate(targets):
            if held[index]:
                settled.setdefault(one.position, index)
        missed = [STALE if one.position in self.leases else GONE for one in targets]
        return [SETTLED if is_held else miss for is_held, miss in zip(held, missed, strict=True)], settled

    def ack(self, targets: Sequence[Target], now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position in settled:
            self.revived.pop(position, None)
            self.forget(position)
        self._free((lease.turn for _, lease in ended), now)
        self.counts["acked"] += len(settled)
        return outcomes

    def nack(
        self,
        targets: Sequence[Target],
        delays: Sequence[int | None] | None,
        now: datetime,
        reason: str | None = None,
    ) -> list[int]:
        """Takes a delay for each, or None for the backoff."""
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            delay = delays[settled[position]] if delays else None
            self._fail(position, lease, "nacked", reason, now)
            self._retry(position, lease.attempts, delay, now, "nacked", lease.turn, reason)
        self._go_on(ended, now)
        self.counts["nacked"] += len(settled)
        return outcomes

    def give_back(self, targets: Sequence[Target], now: datetime) -> list[int]:
        """Gives back undelivered messages: due at once, without the attempt."""
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            self._retry(position, lease.attempts - 1, 0, now, "returned", lease.turn)
        self._go_on(ended, now)
        return outcomes

    def _go_on(self, ended: Sequence[tuple[int, Lease]], now: datetime) -> None:
        turns = [lease.turn for _, lease in ended]
        self._park_after(turns, now)
        self._free(turns, now)

    def reject(self, targets: Sequence[Target], reasons: Sequence[str], now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        ended = self._end(settled)
        for position, lease in ended:
            self._fail(position, lease, "rejected", reasons[settled[position]], now)
            self._die(position, lease.attempts, reasons[settled[position]], now, lease.turn)
        self._go_on(ended, now)
        self.counts["rejected"] += len(settled)
        return outcomes

    def extend(self, targets: Sequence[Target], seconds: int, now: datetime) -> list[int]:
        outcomes, settled = self._settle(targets)
        for position in settled:
            self.leases[position].expires_at = now + timedelta(seconds=seconds)
        return outcomes

    def release(self, now: datetime) -> tuple[int, int]:
        """Ends the leases whose time is over: how many, and how many of these messages died."""
        expired = sorted((lease.expires_at, p) for p, lease in self.leases.items() if lease.expires_at <= now)
        died = 0
        ended = self._end(position for _, position in expired)
        for position, lease in ended:
            self._fail(position, lease, "lease expired", None, now)
            died += self._retry(position, lease.attempts, None, now, "lease expired", lease.turn)
        self._go_on(ended, now)
        self.counts["expired"] += len(expired)
        return len(expired), died

    def _fail(self, position: int, lease: Lease, cause: str, reason: str | None, now: datetime) -> None:
        failed = Failed(now, lease.attempts, cause, reason, lease.consumer_id)
        self.failures[position] = [*self.failures.get(position, []), failed][-KEPT_FAILURES:]

    def forget(self, position: int) -> None:
        """How its deliveries failed, when nothing has the message any more."""
        if position not in self.log.messages and position not in self.dead:
            self.failures.pop(position, None)

    def _retry(
        self,
        position: int,
        attempts: int,
        delay: int | None,
        now: datetime,
        cause: str,
        turn: int | None,
        said: str | None = None,
    ) -> bool:
        """Returns whether the message died."""
        settings = self.subscription
        more = "" if said is None else f": {said}"
        if attempts >= settings.max_delivery_attempts:
            reason = f"{cause} on delivery attempt {attempts} of {settings.max_delivery_attempts}{more}"
            self._die(position, attempts, reason, now, turn)
            return True
        if delay is None:
            doubled = settings.backoff_min_seconds * 2 ** max(attempts - 1, 0)
            delay = min(settings.backoff_max_seconds, doubled)
        self._wait(position, attempts, now + timedelta(seconds=delay), cause + more, turn)
        return False

    def _wait(self, position: int, attempts: int, due_at: datetime, reason: str, turn: int | None = None) -> None:
        if self.floor is not None:
            due_at = max(due_at, self.floor + datetime.resolution)
        (self.waiting if turn is None else self.parked).append(WaitingMessage(due_at, position, attempts, reason, turn))

    def _die(self, position: int, attempts: int, reason: str, now: datetime, turn: int | None = None) -> None:
        message = self.message(position)
        if turn is not None and self.subscription.on_dead_letter == "hold":
            self.parked.append(WaitingMessage(FOREVER, position, 0, PUT_ASIDE, turn))
        self.revived.pop(position, None)
        self.purged += position in self.dead
        self.counts["dead_lettered"] += 1
        self.dead[position] = Dead(message, now, attempts, reason)
        topic = self.logs.get(self.subscription.dead_letter_topic or "")
        attributes: dict[str, str] = json.loads(message.attributes or b"{}")
        if topic is not None and DEAD_LETTER_ID not in attributes:
            attributes |= {
                DEAD_LETTER_ID: self.log.id_of(position, message),
                "dead_letter_subscription_id": self.subscription.id,
                "dead_letter_reason": reason[:MAX_ATTRIBUTE],
                "dead_letter_delivery_attempts": str(attempts),
            }
            topic.publish_or_refuse(message.payload, json.dumps(attributes).encode(), now, message.ordering_key)

    def _dead_among(self, targets: Iterable[Target]) -> list[int]:
        named = ((one.position, one.created_at) for one in targets)
        return sorted({p for p, time in named if p in self.dead and self.dead[p].message.created_at == time})

    def reprocess(self, targets: Iterable[Target], now: datetime) -> list[int]:
        waiting = {one.position for one in self.all_waiting}
        under_way = self.leases.keys() | waiting | set(self.ahead()) | set(self.aside())
        moved = [p for p in self._dead_among(targets) if p <= self.position or p in under_way]
        for position in moved:
            message = self.dead.pop(position).message
            if position in under_way:
                self.purged += 1
            else:
                self.revived[position] = message
                self._revive(position, now)
        return moved

    def _revive(self, position: int, now: datetime) -> None:
        """One that held its key takes its place in it again."""
        is_first, turn = self._end_hold(position)
        self._wait(position, 0, now, "reprocessed", turn)
        if is_first:
            self.waiting.append(self.parked.pop())

    def _end_hold(self, position: int) -> tuple[bool, int | None]:
        """Whether the dead letter was what its key waited for, and its turn when it held its key."""
        for there in (self.due, self.parked):
            for one in there:
                if one.position == position and one.due_at == FOREVER:
                    there.remove(one)
                    return there is self.due, one.turn
        return False, None

    def purge(self, targets: Iterable[Target], now: datetime) -> list[int]:
        purged = self._dead_among(targets)
        for position in purged:
            del self.dead[position]
            is_first, turn = self._end_hold(position)
            if is_first:
                self._free([turn], now)
            self.forget(position)
        self.purged += len(purged)
        return purged

    def seek(self, to: str | datetime | int, now: datetime) -> None:
        """Moves the cursor to a value of `start_from`, or to the position that comes next."""
        self.routed -= len(self.leases) + len(self.all_waiting)
        self.routed += len(self.revived)
        self.dead |= {position: Dead(message, now, 0, SOUGHT) for position, message in self.revived.items()}
        self._move(self.log.before(to), "skipped")

    def settle_all(self) -> int:
        """Purges what is ahead, leased or waiting, and counts it."""
        ended = len(self.leases) + len(self.all_waiting)
        purged = len(self.ahead()) + ended
        self.purged += ended
        revived = list(self.revived)
        self._move(self.log.last, "purged")
        for position in revived:
            self.forget(position)
        return purged

    def _move(self, target: int, state: str) -> None:
        """Ends all deliveries; what lies between is in that state."""
        self.leases.clear()
        self.waiting.clear()
        self.parked.clear()
        self.due.clear()
        self.turns.clear()
        self.revived.clear()
        both = min(self.position, target)
        self.passed = {
            p: passed if passed.state in ("skipped", "purged") else passed._replace(is_sought=True)
            for p, passed in self.passed.items()
            if p <= both
        }
        self.passed |= {p: Passed(state) for p in range(both + 1, target + 1)}
        self.position = target


class Store:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.logs: dict[str, Log] = {}
        self.cursors: dict[str, Cursor] = {}
        self.past: dict[int, Counter[str]] = {}
        self.last_delayed = 0
        self._last_key = 0

    def advance(self, seconds: float, waited: Iterable[str] = ()) -> None:
        """Leases whose time is over end now. `waited`: the subscriptions of which somebody waits for messages."""
        self.now += timedelta(seconds=seconds)
        self.publish_due()
        for cursor in self.cursors.values():
            cursor.release(self.now)
        self.drop_backlogs()
        for id_ in self.cursors.keys() & set(waited):
            self.cursors[id_].use(self.now)
        self.cursors = {id_: cursor for id_, cursor in self.cursors.items() if not cursor.is_expired(self.now)}
        self.count()

    def publish_due(self) -> None:
        for log in self.logs.values():
            if log.delayed:
                log.publish_due(self.now)
            if log.schedules:
                log.fire_due(self.now)

    def drop_backlogs(self) -> None:
        for cursor in self.cursors.values():
            while cursor.drop_backlog(self.now)[2]:
                pass

    def fullest(self, log: Log) -> Cursor | None:
        """Of those that reject, the one with the least room."""
        limited = [one for one in self.cursors.values() if one.log is log and one.backlog_room is not None]
        return min(limited, key=lambda one: one.backlog_room or 0, default=None)

    def require_room(self, log: Log, count: int) -> None:
        """Raises unless so many messages may be published."""
        full = self.fullest(log)
        if full is None or full.backlog_room is None or full.backlog_room >= count or count == 0:
            return
        id_, most, room = full.subscription.id, full.subscription.max_backlog or 0, full.backlog_room
        if room > 0 and count > most:
            raise InvalidRequest(
                f'subscription "{id_}" can have {most} messages before it (max_backlog), and {count} were published at '
                "once: publish fewer"
            )
        raise BacklogFull(
            f'subscription "{id_}" is full: it has room for {max(room, 0)} of its max_backlog of {most} messages; '
            "try again when its consumers have come further"
        )

    def count(self) -> None:
        """Adds to the history what has happened since the last call."""
        at = int(self.now.timestamp()) // INTERVAL_SECONDS * INTERVAL_SECONDS
        counted: list[Log | Cursor] = [*self.logs.values(), *self.cursors.values()]
        for one in counted:
            if one.counts:
                for past in (one.past, self.past):
                    past.setdefault(at, Counter()).update(one.counts)
                one.counts.clear()

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
        for cursor in self.cursors.values():
            if cursor.subscription.dead_letter_topic == topic_id:
                raise AlreadyExists(
                    f'topic "{topic_id}" gets the dead letters of subscription "{cursor.subscription.id}": '
                    "give that another dead_letter_topic first, or none"
                )
        del self.logs[topic_id]
        self.cursors = {id_: cursor for id_, cursor in self.cursors.items() if cursor.log is not log}

    def create_subscription(self, new: NewSubscription, wanted: Filter | None) -> Subscription:
        refuse_push(new.push)
        log = self.log(new.topic_id)
        if new.id in self.cursors:
            raise AlreadyExists(f'subscription "{new.id}" already exists')
        if new.fork_of is not None:
            return self._fork_subscription(new, new.fork_of, wanted)
        settings = {name: _given(getattr(new, name), default) for name, default in DEFAULTS.items()}
        if new.backoff_max_seconds is None:
            settings["backoff_max_seconds"] = max(settings["backoff_max_seconds"], settings["backoff_min_seconds"])
        subscription = Subscription(
            id=new.id,
            topic_id=new.topic_id,
            filter=new.filter or None,
            created_at=self.now,
            ordered=new.ordered,
            **{name: getattr(new, name) or None for name in REMOVABLE},
            on_expired=new.on_expired or "drop",
            on_dead_letter=new.on_dead_letter or "continue",
            on_full=new.on_full or "reject",
            **settings,
        )
        _check_backoff(subscription)
        _check_order(subscription)
        self._check_dead_letter_topic(subscription)
        return self._begin(Cursor(log, subscription, log.before(new.start_from), self.logs, wanted))

    def _begin(self, cursor: Cursor) -> Subscription:
        cursor.use(self.now)
        self.cursors[cursor.subscription.id] = cursor
        return cursor.subscription

    def _fork_subscription(self, new: NewSubscription, fork_of: str, wanted: Filter | None) -> Subscription:
        original = self.cursor(fork_of)
        if original.subscription.topic_id != new.topic_id:
            raise InvalidRequest(f'fork_of: subscription "{fork_of}" is not of the topic "{new.topic_id}"')
        given = {name: getattr(new, name) for name in new.model_fields_set - {"fork_of", "push"}}
        chosen = {name: value for name, value in given.items() if value is not None}
        if "filter" in given:
            chosen["filter"] = new.filter or None
        chosen |= {name: chosen[name] or None for name in REMOVABLE if name in chosen}
        afresh = {"created_at": self.now, "is_paused": False, "paused_at": None}
        subscription = original.subscription.model_copy(update=afresh | chosen)
        _check_backoff(subscription)
        _check_order(subscription)
        self._check_dead_letter_topic(subscription)
        judge = wanted if "filter" in given else original.wanted
        return self._begin(Cursor(original.log, subscription, original.unsettled - 1, self.logs, judge))

    def update_subscription(
        self, subscription_id: str, changed: ChangedSubscription, wanted: Filter | None
    ) -> Subscription:
        refuse_push(changed.push)
        cursor = self.cursor(subscription_id)
        given = {name: getattr(changed, name) for name in DEFAULTS if getattr(changed, name) is not None}
        if "filter" in changed.model_fields_set:
            given["filter"] = changed.filter or None
        given |= {name: getattr(changed, name) or None for name in REMOVABLE if name in changed.model_fields_set}
        given |= {name: getattr(changed, name) for name in CHOSEN if getattr(changed, name) is not None}
        subscription = cursor.subscription.model_copy(update=given)
        _check_backoff(subscription)
        _check_order(subscription)
        if "dead_letter_topic" in given:
            self._check_dead_letter_topic(subscription)
        cursor.subscription = subscription
        if "filter" in given:
            cursor.wanted = wanted
        if "expire_after_seconds" in given:
            cursor.use(self.now)
        return cursor.subscription

    def _check_dead_letter_topic(self, subscription: Subscription) -> None:
        topic_id = subscription.dead_letter_topic
        if topic_id is None:
            return
        if topic_id == subscription.topic_id:
            raise InvalidRequest(
                "dead_letter_topic is the topic of the subscription, which would get its dead letters itself: "
                "name another one"
            )
        if topic_id not in self.logs:
            raise NotFound(f'dead_letter_topic: topic "{topic_id}" does not exist')
        if self.logs[topic_id].schema is not None:
            raise InvalidRequest(
                f'dead_letter_topic: topic "{topic_id}" has a JSON Schema, and dead letters may not match it: '
                "name a topic without one"
            )

    def delete_subscription(self, subscription_id: str) -> None:
        self.cursor(subscription_id)
        del self.cursors[subscription_id]


NEVER = Expiry(None, None)


def expiry_time(expiry: Expiry, created_at: datetime) -> datetime | None:
    return expiry.expires_at if expiry.ttl_seconds is None else created_at + timedelta(seconds=expiry.ttl_seconds)


def rates_of(past: dict[int, Counter[str]], now: datetime, names: Iterable[str]) -> dict[str, float]:
    """Per second, over the last minute that is over."""
    end = int(now.timestamp()) // INTERVAL_SECONDS * INTERVAL_SECONDS
    last = [past[at] for at in range(end - MINUTE, end, INTERVAL_SECONDS) if at in past]
    return {name: sum(counts[name] for counts in last) / MINUTE for name in names}


def of_waiting(one: WaitingMessage) -> dict[str, Any]:
    return {"delivery_attempts": one.attempts, "due_at": one.due_at, "reason": one.reason}


def of_failures(failures: list[Failed] | None) -> dict[str, Any]:
    """The failures of a message as answers have them: what is not known is left out, and so is all of it for none."""
    if not failures:
        return {}
    members = [failed._asdict() for failed in failures]
    return {"failures": [{name: one for name, one in member.items() if one is not None} for member in members]}


def of_lease(lease: Lease) -> dict[str, Any]:
    """What is known of who holds a message, by its names in answers."""
    return {
        "consumer_id": lease.consumer_id,
        "leased_at": lease.leased_at,
        "lease_expires_at": lease.expires_at,
    }


def read_filter(text: bytes | str | None) -> Filter | None:
    """Reads the filter with its numbers as written."""
    return None if text is None else filters.read(text) or None


def matches(
    wanted: Filter | None, payload: bytes, attributes: bytes | None = None, ordering_key: str | None = None
) -> bool:
    """Whether a message with these passes."""
    if not wanted:
        return True
    beside = filters.Beside(filters.read(attributes or b"null"), ordering_key)
    return filters.matches(wanted, filters.read(payload), beside)


def passes(wanted: Filter | None, message: Stored) -> bool:
    return matches(wanted, message.payload, message.attributes, message.ordering_key)


def is_found(search: Search | None, message: Stored) -> bool:
    """In the text of the payload, where ASCII letters have no case, in one of its fields, or in an attribute."""
    if search is None:
        return True
    if search.where == "text":
        return any(value.encode().lower() in message.payload.lower() for value in search.values)
    document = filters.read(message.payload if search.where == "payload" else message.attributes or b"{}")
    values = [filters.read(one) for one in search.values] if search.where == "payload" else search.values
    return search.name in document and any(
        type(document[search.name]) is type(value) and document[search.name] == value for value in values
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _check_backoff(subscription: Subscription) -> None:
    if subscription.backoff_max_seconds < subscription.backoff_min_seconds:
        raise InvalidRequest("backoff_max_seconds must not be below backoff_min_seconds")


def _check_order(subscription: Subscription) -> None:
    if subscription.on_dead_letter == "hold" and not subscription.ordered:
        raise InvalidRequest("on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true")
    if subscription.ordered and subscription.fair_by:
        raise InvalidRequest(
            "fair_by: an ordered subscription lets its keys take turns already: leave fair_by out, or ordered"
        )
    if subscription.fair_by and subscription.on_full != "reject":
        raise InvalidRequest(
            f'on_full: a subscription with fair_by cannot have "{subscription.on_full}", because it passes no message '
            'of a key: use "reject"'
        )
    if subscription.ordered and subscription.on_full != "reject":
        raise InvalidRequest(
            f'on_full: an ordered subscription cannot have "{subscription.on_full}", because it passes no message of a '
            'key: use "reject"'
        )


def refuse_push(push: NewPush | None) -> None:
    if push is not None:
        raise InvalidRequest(
            "the bus in memory pushes nothing by itself: leave out push, and call the push of the bus in the test"
        )
