"""Everything together: random calls in virtual time do to the database what they do to the store of the bus in memory.

There are two topics, each of which may get the dead letters of the other's subscriptions.

FASTPUBSUB_TEST_EXAMPLES=2000 looks longer.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastpubsub.exceptions import BacklogFull, InvalidRequest, NotFound
from fastpubsub.message_ids import parse
from fastpubsub.models import ChangedSubscription, NewSubscription
from fastpubsub.payloads import Expiry
from fastpubsub.removable import LIMITS
from fastpubsub.testing.store import store as memory
from fastpubsub.testing.store.cursor import Cursor
from fastpubsub.testing.store.failing import DEAD_LETTER_ID
from fastpubsub.testing.store.judging import read_filter
from fastpubsub.testing.store.log import Log
from fastpubsub.testing.store.records import Claimed as ClaimedInMemory
from fastpubsub.testing.store.records import Stored
from fastpubsub.testing.store.settling import SETTLED
from tests.database import delayed, schedules
from tests.database.model_redrives import Redrives, shown
from tests.database.model_rules import ATTRIBUTES, KEYS, PAYLOADS, PLAIN, TTLS, Scheduling, Transacting, targets
from tests.database.store import (
    EVERYTHING,
    EXAMPLES,
    NOW,
    OF_SUBSCRIPTIONS,
    Claimed,
    DeadLetter,
    Id,
    Judged,
    Kept,
    Keys,
    Lease,
    Metrics,
    Released,
    Retry,
    Settings,
    Settles,
    Store,
)

FILTERS = st.sampled_from(
    [
        *(None, "null", "{}", '{"a": [1]}', '{"a": [1, 2], "b": ["x", true]}', '{"b": ["x"]}'),
        *('{"$attributes": {"a": ["x"]}}', '{"$message": [{"ordering_key": ["a"]}]}'),
    ]
)
NAMES = st.sampled_from(["first", "second", "failures"])
TOPICS = {"topic": ("first", "second"), "failed": ("failures",)}
"""With the names that their subscriptions have."""

OTHER = {"topic": "failed", "failed": "topic"}
DEAD_LETTER_TOPICS = st.sampled_from([None, "failed", "failed", "failed", "topic", "missing"])
"""Those of the topic `failed` have the other one in its place."""
ON_FULL = st.sampled_from(["reject", "reject", "drop_oldest", "dead_letter"])
FAIR_BY = st.sampled_from(["", "ordering_key", "attributes.a"])
JITTER = st.sampled_from([None, None, 0, 0.3, 1])
SETTINGS = st.builds(
    Settings,
    filter=FILTERS,
    ack_deadline=st.sampled_from([5, 30]),
    max_attempts=st.integers(1, 3),
    backoff_min=st.sampled_from([0, 1, 10]),
    backoff_max=st.sampled_from([10, 20]),
    backoff_jitter=JITTER,
    start=st.sampled_from(["earliest", "latest", "time"]),
    ordered=st.booleans(),
    max_in_flight=st.sampled_from([None, None, 0, 2, 5]),
    rate_limit=st.sampled_from([None, None, 0, 0.5, 2, 4]),
    expire_after=st.sampled_from([None, 0, 60]),
    on_expired=st.sampled_from(["drop", "dead_letter"]),
    on_dead_letter=st.sampled_from(["continue", "hold"]),
    max_backlog=st.sampled_from([None, None, 0, 3, 8]),
    on_full=ON_FULL,
    fair_by=FAIR_BY,
    dead_letter_topic=DEAD_LETTER_TOPICS,
)
FORKED = {
    "filter": FILTERS,
    "ack_deadline_seconds": st.sampled_from([5, 30]),
    "max_delivery_attempts": st.integers(1, 3),
    "ordered": st.booleans(),
    "on_expired": st.sampled_from(["drop", "dead_letter"]),
    "on_dead_letter": st.sampled_from(["continue", "hold"]),
    "max_backlog": st.sampled_from([0, 2, 5]),
    "on_full": ON_FULL,
    "fair_by": FAIR_BY,
    "backoff_jitter": st.sampled_from([0, 0.5, 0.731]),
    "dead_letter_topic": st.sampled_from(["", "failed", "topic", "missing"]),
}
ROW_BYTES = 80
"""Of a message beside its payload and attributes, with its entry in the index."""

BYTES = st.sampled_from([EVERYTHING, EVERYTHING, 1, 20, 40])
DELAYS = st.one_of(st.none(), st.integers(0, 20))
NO_MARK = 1 << 30
"""Seconds: the floor of delayed messages moves with messages alone."""


def settings_of(settings: Settings) -> dict[str, Any]:
    return {
        "filter": json.loads(settings.filter or "null"),
        "ack_deadline_seconds": settings.ack_deadline,
        "max_delivery_attempts": settings.max_attempts,
        "backoff_min_seconds": settings.backoff_min,
        "backoff_max_seconds": settings.backoff_max,
        "backoff_jitter": settings.backoff_jitter,
        "max_in_flight": settings.max_in_flight,
        "rate_limit": settings.rate_limit,
        "expire_after_seconds": settings.expire_after,
        "on_expired": settings.on_expired,
        "on_dead_letter": settings.on_dead_letter,
        "max_backlog": settings.max_backlog,
        "on_full": settings.on_full,
        "dead_letter_topic": settings.dead_letter_topic,
    }


def topic_of(name: str) -> str:
    return next(topic for topic, names in TOPICS.items() if name in names)


def seen_from(topic: str, dead_letter_topic: str | None) -> str | None:
    return OTHER.get(dead_letter_topic or "", dead_letter_topic) if topic == "failed" else dead_letter_topic


def browsed(cursor: Cursor, state: str, position: int, more: dict[str, Any]) -> tuple[Any, ...]:
    message = cursor.dead[position].message if state == "dead" else cursor.message(position)
    return position, more["delivery_attempts"], more.get("leased_at"), more.get("reason"), message.payload


def oldest(cursor: Cursor, positions: Iterable[int]) -> datetime | None:
    return min((cursor.message(position).created_at for position in positions), default=None)


def metrics_of(cursor: Cursor) -> Metrics:
    ahead, waiting = cursor.ahead(), [one.position for one in cursor.all_waiting]
    counts = (len(ahead), len(waiting), len(cursor.leases), len(cursor.dead), cursor.acked)
    times = (oldest(cursor, ahead), oldest(cursor, cursor.leases), oldest(cursor, waiting))
    return Metrics(
        *counts,
        False,
        *times,
        filtered=cursor.filtered,
        ttl_expired=cursor.ttl_expired,
        held_keys=cursor.held_keys,
        dropped=cursor.dropped,
    )


def pins(cursor: Cursor) -> list[tuple[int, str]]:
    """What trimming must leave, and why."""
    held = [(position, "leased") for position in cursor.leases] + [
        (one.position, "waiting") for one in cursor.waiting + cursor.due
    ]
    return [(cursor.position + 1, "ahead"), *((p, state) for p, state in held if p in cursor.log.messages)]


def kept_of(cursor: Cursor, retention: int, now: datetime) -> Kept:
    """What trimming would take away if the subscription were deleted, and no other kept it."""
    messages = cursor.log.messages
    position, state = min(((p, state) for p, state in pins(cursor) if p in messages), default=(cursor.log.last, ""))
    end = cursor.log.before(now - timedelta(seconds=retention))
    kept = [message for one, message in messages.items() if position <= one <= end]
    if not kept or not state:
        return Kept(None, None, None, 0, 0)
    return Kept(position, kept[0].created_at, state, len(kept), sum(ROW_BYTES + one.size for one in kept))


class Machine(Scheduling, Transacting, Redrives):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.now = NOW
        self.model = memory.Store()
        self.keys: dict[str, Keys] = {}
        self.handed_out: dict[str, list[Id]] = {}
        self.judged: dict[str, Judged | None] = {}
        self.consumers: dict[int, dict[int, str]] = {}
        self.later: list[int] = []
        self.topics: dict[str, int] = {}
        self.copied: dict[str, int] = {}

    @initialize(
        settings=SETTINGS,
        payloads=st.lists(PAYLOADS, min_size=4, max_size=8),
        keys=st.lists(KEYS, min_size=8, max_size=8),
    )
    def begin(self, settings: Settings, payloads: list[str], keys: list[str | None]) -> None:
        for name in TOPICS:
            self.topics[name] = self.store.create_topic(name, now=self.now)
            self.model.create_topic(name, None)
            # For the ids in copies of dead letters.
            self.model.log(name).key = self.topics[name]
        self.topic = self.topics["topic"]
        self.log = self.model.log("topic")
        self.subscribe("first", settings)
        self.publish(payloads, 0, keys)

    def teardown(self) -> None:
        try:
            for name, cursor in self.model.cursors.items():
                if (topic := cursor.subscription.dead_letter_topic) is not None:
                    with self.store.refused("FP409"):
                        self.store.delete_topic(topic)
                    self.store.update_subscription(name, dead_letter_topic="")
            for topic in TOPICS:
                self.store.delete_topic(topic)
            while self.store.empty_purges(3) is not None:
                pass
            for table in (
                "messages",
                "message_keys",
                "delayed_messages",
                "fired_messages",
                "schedules",
                "redrives",
                *OF_SUBSCRIPTIONS,
                "heads",
                "cursors",
                "subscriptions",
                "topics",
            ):
                query = f"select count(*) from fastpubsub.{table} where topic_key = any(%s)"
                assert (table, self.store.value(query, list(self.topics.values()))) == (table, 0)
        finally:
            self.store.connection.rollback()

    def subscription(self, data: st.DataObject) -> tuple[str, Cursor, Keys]:
        name = data.draw(st.sampled_from(sorted(self.keys)))
        return name, self.model.cursor(name), self.keys[name]

    def ids(self, data: st.DataObject, name: str, cursor: Cursor) -> list[Id]:
        """Of deliveries now and earlier, with and without token, sometimes twice, sometimes wrong."""
        held = [
            Id(position, lease.token, cursor.message(position).created_at) for position, lease in cursor.leases.items()
        ]
        variations = st.sampled_from(
            [
                lambda one: one,
                lambda one: one._replace(created_at=None),
                lambda one: one.bare,
                lambda one: one._replace(token=7),
                lambda one: Id(one.position, None, NOW - timedelta(days=1)),
                lambda one: one._replace(position=99),
            ]
        )
        choices = st.sampled_from(held * 2 + self.handed_out[name][-8:] or [Id(1, 7, None)])
        drawn = data.draw(st.lists(st.tuples(choices, variations), max_size=6))
        return [vary(one) for one, vary in drawn]

    @rule(seconds=st.sampled_from([0, 1, 5, 12, 40]), microseconds=st.sampled_from([0, 1, 1500]))
    def wait(self, seconds: int, microseconds: int) -> None:
        self.now += timedelta(seconds=seconds, microseconds=microseconds)

    @rule(
        payloads=st.lists(PAYLOADS, min_size=1, max_size=6),
        late=st.integers(0, 3),
        keys=st.lists(KEYS, min_size=6, max_size=6),
        ttls=st.lists(TTLS, min_size=6, max_size=6),
        attributes=st.lists(ATTRIBUTES, min_size=6, max_size=6),
        to=st.sampled_from(["topic", "topic", "topic", "failed"]),
    )
    def publish(
        self,
        payloads: list[str],
        late: int,
        keys: Sequence[str | None],
        ttls: Sequence[int | None] | None = None,
        attributes: Sequence[str | None] | None = None,
        to: str = "topic",
    ) -> None:
        """Sometimes by a clock that is behind."""
        now = self.now - timedelta(milliseconds=late)
        keys = keys[: len(payloads)]
        ttls = (ttls or [None] * 8)[: len(payloads)]
        attributes = (attributes or [None] * 8)[: len(payloads)]
        log, topic = self.model.log(to), self.topics[to]
        if (refusal := self.refusal(len(payloads), log=log)) is not None:
            with self.store.refused(refusal):
                self.store.publish(topic, payloads, attributes, ordering_keys=keys, ttls=ttls, now=now)
            return
        published = self.store.publish(topic, payloads, attributes, ordering_keys=keys, ttls=ttls, now=now)
        expiries = [Expiry(None, ttl) for ttl in ttls]
        beside = [None if one is None else one.encode() for one in attributes]
        ids = log.publish([one.encode() for one in payloads], beside, now, keys, expiries)
        assert [one and one[1:] for one in map(parse, ids)] == [
            (published.first_position + index, published.created_at) for index in range(len(payloads))
        ]

    def refusal(self, count: int, *, of: int | None = None, log: Log | None = None) -> str | None:
        """Of a publish of so many messages now, out of a number with those that come later."""
        log = log or self.log
        try:
            self.model.require_room(log, count)
        except InvalidRequest:
            return "FP422"
        except BacklogFull:
            full = self.model.fullest(log)
            is_full = full is not None and (full.backlog_room or 0) <= 0 and count == (of or count)
            return "FP429" if is_full else "FP430"
        return None

    @rule(data=st.data(), limit=st.sampled_from([1, 2, 1000]))
    def drop_backlog(self, data: st.DataObject, limit: int) -> None:
        _, cursor, keys = self.subscription(data)
        assert self.store.drop_backlog(keys, limit, now=self.now) == cursor.drop_backlog(self.now, limit)

    @rule(name=NAMES, settings=SETTINGS)
    def subscribe(self, name: str, settings: Settings) -> None:
        if not settings.ordered:
            settings.on_dead_letter = None
        if settings.ordered and settings.on_full != "reject":
            with self.store.refused("FP422"):
                self.store.create_subscription(name, settings=settings, now=self.now)
            settings.on_full = "reject"
        if settings.fair_by and (settings.ordered or settings.on_full != "reject"):
            with self.store.refused("FP422"):
                self.store.create_subscription(name, settings=settings, now=self.now)
            settings.fair_by = ""
        topic = topic_of(name)
        create = partial(self.store.create_subscription, name, topic, settings, now=self.now)
        if name in self.keys:
            with self.store.refused("FP409"):
                create()
            return
        settings.dead_letter_topic = seen_from(topic, settings.dead_letter_topic)
        if settings.dead_letter_topic in (topic, "missing"):
            with self.store.refused("FP422" if settings.dead_letter_topic == topic else "FP404"):
                create()
            settings.dead_letter_topic = None
        settings.start_time = self.now - timedelta(seconds=3) if settings.start == "time" else None
        new = NewSubscription(
            id=name,
            topic_id=topic,
            start_from=settings.start_time or settings.start,
            ordered=settings.ordered,
            fair_by=settings.fair_by,
            **settings_of(settings),
        )
        self.model.create_subscription(new, read_filter(settings.filter))
        self.keys[name] = create()
        self.handed_out[name] = []

    @rule(data=st.data(), name=NAMES, given=st.fixed_dictionaries({}, optional=FORKED))
    def fork(self, data: st.DataObject, name: str, given: dict[str, Any]) -> None:
        of, _, _ = self.subscription(data)
        if name in self.keys:
            with self.store.refused("FP409"):
                self.store.fork_subscription(name, of, topic_of(name), now=self.now)
            return
        written = given.get("filter")
        was = self.model.cursor(of).subscription
        if not given.get("ordered", was.ordered) and given.get("on_dead_letter", was.on_dead_letter) == "hold":
            given = given | {"on_dead_letter": "continue"}
        if "dead_letter_topic" in given:
            given = given | {"dead_letter_topic": seen_from(topic_of(name), given["dead_letter_topic"])}
        settings = given | ({"filter": json.loads(written or "null")} if "filter" in given else {})
        new = NewSubscription(id=name, topic_id=topic_of(name), fork_of=of, **settings)
        create = partial(self.store.fork_subscription, name, of, topic_of(name), now=self.now, **given)
        with self.refused_alike(create) as is_refused:
            self.model.create_subscription(new, read_filter(written))
        if not is_refused:
            self.keys[name] = create()
            self.handed_out[name] = []

    @contextmanager
    def refused_alike(self, call: Callable[[], object]) -> Iterator[list[str]]:
        """What the model refuses inside is refused to the call, too; then there is something in the list."""
        refused: list[str] = []
        try:
            yield refused
        except (InvalidRequest, NotFound) as error:
            refused.append("FP404" if isinstance(error, NotFound) else "FP422")
            with self.store.refused(refused[0]):
                call()

    @precondition(lambda self: len(self.keys) > 1)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        name, _, keys = self.subscription(data)
        self.store.delete_subscription(name)
        self.model.delete_subscription(name)
        del self.keys[name], self.handed_out[name]
        with self.store.refused("FP404"):
            self.store.claim(keys, now=self.now)
        assert self.store.orphans() == {}

    @rule(limit=st.integers(1, 5))
    def empty_purges(self, limit: int) -> None:
        self.store.empty_purges(limit)
        assert self.store.orphans() == {}

    @rule(data=st.data(), settings=SETTINGS, with_filter=st.booleans())
    def patch(self, data: st.DataObject, settings: Settings, with_filter: bool) -> None:
        name, cursor, _ = self.subscription(data)
        settings.dead_letter_topic = seen_from(topic_of(name), settings.dead_letter_topic)
        changes = settings_of(settings)
        if not cursor.subscription.ordered:
            changes["on_dead_letter"] = "continue"
        if not with_filter:
            del changes["filter"]
        new = ChangedSubscription(**changes)
        changes |= {name: changes[name] or 0 for name in LIMITS}
        changes["dead_letter_topic"] = changes["dead_letter_topic"] or ""
        if with_filter:
            changes |= {"change_filter": True, "filter": settings.filter}
        update = partial(self.store.update_subscription, name, **changes)
        with self.refused_alike(update) as is_refused:
            self.model.update_subscription(name, new, read_filter(settings.filter))
        if not is_refused:
            update()

    @rule(
        payloads=st.lists(PAYLOADS, min_size=1, max_size=3),
        delays=st.lists(DELAYS, min_size=3, max_size=3),
        ttl=TTLS,
        keys=st.lists(KEYS, min_size=3, max_size=3),
        attributes=ATTRIBUTES,
    )
    def publish_later(
        self,
        payloads: list[str],
        delays: list[int | None],
        ttl: int | None,
        keys: list[str | None],
        attributes: str | None,
    ) -> None:
        delays = [None if delay is None else delay - 5 for delay in delays[: len(payloads)]]
        times = [None if delay is None else self.now + timedelta(seconds=delay) for delay in delays]
        keys = keys[: len(payloads)]
        request = delayed.Request(
            payloads,
            times,
            ttls=[ttl] * len(payloads),
            ordering_keys=keys,
            attributes=[attributes] * len(payloads),
        )
        if (refusal := self.refusal(times.count(None), of=len(times))) is not None:
            with self.store.refused(refusal):
                delayed.publish(self.store, self.topic, request, now=self.now)
            return
        (answer,) = delayed.publish(self.store, self.topic, request, now=self.now)
        self.log.floor = self.log.floor or self.now
        beside = None if attributes is None else attributes.encode()
        for payload, key, handle, time in zip(payloads, keys, answer.delayed_keys, times, strict=True):
            if handle is None:
                self.log.publish([payload.encode()], [beside], self.now, [key], [Expiry(None, ttl)])
            elif time is not None:
                message = Stored(payload.encode(), beside, self.now, key, None, ttl)
                self.log.delay(handle, time, message, self.now)
                self.later.append(handle)

    @precondition(lambda self: self.later)
    @rule(limit=st.integers(1, 3))
    def publish_due(self, limit: int) -> None:
        published = delayed.publish_due(self.store, self.topic, now=self.now, limit=limit, mark=NO_MARK).published
        assert published == self.log.publish_due(self.now, limit)

    @precondition(lambda self: self.later)
    @rule(data=st.data(), seconds=st.integers(1, 20))
    def move_later(self, data: st.DataObject, seconds: int) -> None:
        key = data.draw(st.sampled_from(self.later))
        moved = delayed.move(self.store, self.topic, key, seconds=seconds, now=self.now)
        if key in self.log.delayed:
            assert moved == (self.log.move(key, self.now + timedelta(seconds=seconds)).due_at, False)
        else:
            assert moved == (None, key in self.log.fired)

    @precondition(lambda self: self.later)
    @rule(data=st.data())
    def cancel_later(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.later))
        is_there = self.log.delayed.pop(key, None) is not None
        assert delayed.cancel(self.store, self.topic, key) == (is_there, key in self.log.fired)

    @rule(data=st.data(), payload=PAYLOADS)
    def killed(self, data: st.DataObject, payload: str) -> None:
        """Whoever does all this ends before the commit: it was never done."""
        _, _, keys = self.subscription(data)
        with self.store.undone(), suppress(psycopg.Error):
            delayed.publish_due(self.store, self.topic, now=self.now, mark=NO_MARK)
            for _, id_, revision, next_at in schedules.due(self.store, self.now):
                schedules.fire(self.store, self.topic, id_, revision=revision, due_at=next_at, now=self.now)
            claimed = self.store.claim(keys, [3], now=self.now)
            self.store.reject(keys, claimed.ids[:1], now=self.now)
            self.store.ack(keys, claimed.ids[1:], now=self.now)
            self.store.release(keys, now=self.now)
            self.store.publish(self.topic, [payload], now=self.now)

    @rule(data=st.data(), limits=st.lists(st.integers(1, 4), min_size=1, max_size=3), max_bytes=BYTES)
    def claim(self, data: st.DataObject, limits: list[int], max_bytes: int) -> None:
        name, _, _ = self.subscription(data)
        self.claim_of(name, limits, max_bytes, data.draw(st.sampled_from([1, 3, 50_000])))

    def go_on(self, name: str) -> None:
        """Keys of a fair subscription stand in line again a moment after a claim."""
        if self.model.cursor(name).subscription.fair_by:
            # What died has its copy before.
            self.relay()
            self.now += timedelta(milliseconds=1)

    def claim_of(self, name: str, limits: list[int], max_bytes: int, scan_rows: int) -> None:
        consumers = [f"consumer {index}" for index in range(len(limits))]
        self.go_on(name)
        claimed = self.store.claim(
            self.keys[name], limits, consumers, now=self.now, max_bytes=max_bytes, scan_rows=scan_rows
        )
        self.claimed(name, claimed, limits, max_bytes, scan_rows)

    def claimed(self, name: str, claimed: Claimed, limits: list[int], max_bytes: int, scan_rows: int) -> None:
        cursor = self.model.cursor(name)
        consumers = [f"consumer {index}" for index in range(len(limits))]
        # What comes first in a fair subscription is by the number of its claims.
        query = "select max(sequence) from fastpubsub.claims where topic_key = %s and subscription_key = %s"
        cursor.sequence = self.store.value(query, *self.keys[name]) - 1
        # An ordered subscription serves one after the other, each with the bytes that are left.
        token = claimed.token or 0
        dropped, died = cursor.ttl_expired, cursor.counts["dead_lettered"]
        if cursor.subscription.ordered:
            expected: list[ClaimedInMemory] = []
            for limit in limits:
                left = max_bytes - sum(one.message.size for one in expected)
                expected += cursor.claim(limit, self.now, token=token, max_bytes=left, is_first=not expected)
        else:
            expected = cursor.claim(sum(limits), self.now, token=token, max_bytes=max_bytes, scan_rows=scan_rows)
        assert claimed.positions == [one.position for one in expected]
        assert claimed.attempts == [one.lease.attempts for one in expected]
        assert claimed.payloads == [one.message.payload.decode() for one in expected]
        assert claimed.created_at == [one.message.created_at for one in expected]
        assert claimed.scanned == cursor.position
        assert claimed.is_paused == cursor.is_paused
        assert claimed.last == cursor.log.last or not expected
        assert (claimed.ttl_expired or 0) == cursor.ttl_expired - dropped
        assert (claimed.dead_lettered or 0) == cursor.counts["dead_lettered"] - died
        assert (claimed.limited_seconds is not None) >= (bool(expected) and cursor.room(self.now) == 0)
        if not expected:
            return
        assert claimed.token is not None
        assert claimed.token not in self.consumers
        shares = [consumer for consumer, n in zip(consumers, claimed.shares or limits, strict=True) for _ in range(n)]
        self.consumers[claimed.token] = dict(zip(claimed.positions, shares, strict=False))
        self.handed_out[name] += claimed.ids

    def claimed_now(self, name: str) -> list[Id]:
        before = len(self.handed_out[name])
        self.claim_of(name, [2], EVERYTHING, 50_000)
        return self.handed_out[name][before:]

    @rule(data=st.data())
    def claim_and_reject(self, data: st.DataObject) -> None:
        """Dead letters are where much can happen and little comes by chance."""
        name, cursor, keys = self.subscription(data)
        ids = self.claimed_now(name)
        reasons = ["rejected"] * len(ids)
        if all(map(cursor.holds, targets(ids))):
            assert self.store.reject(keys, ids, now=self.now) == cursor.reject(targets(ids), reasons, self.now)

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        name, cursor, keys = self.subscription(data)
        ids = self.ids(data, name, cursor)
        assert self.store.ack(keys, ids, now=self.now) == cursor.ack(targets(ids), self.now)

    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        name, cursor, keys = self.subscription(data)
        ids = self.ids(data, name, cursor)
        delays = data.draw(st.one_of(st.none(), st.lists(DELAYS, min_size=len(ids), max_size=len(ids))))
        assert self.store.nack(keys, ids, delays, now=self.now) == cursor.nack(targets(ids), delays, self.now)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        name, cursor, keys = self.subscription(data)
        ids = self.ids(data, name, cursor)
        reasons = [f"reason {index}" for index in range(len(ids))]
        assert self.store.reject(keys, ids, reasons, now=self.now) == cursor.reject(targets(ids), reasons, self.now)

    @rule(data=st.data(), seconds=st.integers(0, 60))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        name, cursor, keys = self.subscription(data)
        ids = self.ids(data, name, cursor)
        assert self.store.extend(keys, ids, seconds, now=self.now) == cursor.extend(targets(ids), seconds, self.now)

    @rule(data=st.data(), limits=st.lists(st.integers(1, 4), max_size=2), max_bytes=BYTES, seconds=st.integers(1, 60))
    def settle_and_claim(self, data: st.DataObject, limits: list[int], max_bytes: int, seconds: int) -> None:
        name, cursor, keys = self.subscription(data)
        self.go_on(name)
        acks, nacks, returns, rejects, extensions = (self.ids(data, name, cursor) for _ in range(5))
        delays = data.draw(st.lists(DELAYS, min_size=len(nacks), max_size=len(nacks)))
        reasons = [f"reason {index}" for index in range(len(rejects))]
        longer = [seconds] * len(extensions)
        outcomes, claimed = self.store.settle_and_claim(
            keys,
            Settles((acks, None), (nacks, delays), (returns, None), (rejects, reasons), (extensions, longer)),
            limits,
            [f"consumer {index}" for index in range(len(limits))],
            now=self.now,
            max_bytes=max_bytes,
        )
        assert outcomes == [
            cursor.ack(targets(acks), self.now),
            cursor.nack(targets(nacks), delays, self.now),
            cursor.give_back(targets(returns), self.now),
            cursor.reject(targets(rejects), reasons, self.now),
            cursor.extend(targets(extensions), seconds, self.now),
        ]
        if limits:
            self.claimed(name, claimed, limits, max_bytes, 50_000)

    @rule(data=st.data(), share=st.integers(1, 5))
    def give_back(self, data: st.DataObject, share: int) -> None:
        name, cursor, keys = self.subscription(data)
        if self.handed_out[name]:
            token = data.draw(st.sampled_from(list(dict.fromkeys(one.token or 0 for one in self.handed_out[name]))))
            positions = [one.position for one in self.handed_out[name] if one.token == token][:share]
            given = cursor.give_back(targets([Id(position, token, None) for position in positions]), self.now)
            assert self.store.give_back(keys, positions, token, now=self.now) == given.count(SETTLED)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, cursor, keys = self.subscription(data)
        assert self.store.release(keys, now=self.now) == Released(*cursor.release(self.now))

    @precondition(lambda self: self.has_dead())
    @rule(data=st.data())
    def reprocess(self, data: st.DataObject) -> None:
        _, cursor, keys = self.with_dead(data)
        ids = self.dead_ids(data, cursor)
        assert self.store.reprocess(keys, ids, now=self.now) == cursor.reprocess(targets(ids), self.now)

    @precondition(lambda self: self.has_dead())
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        _, cursor, keys = self.with_dead(data)
        ids = self.dead_ids(data, cursor)
        assert self.store.purge(keys, ids, now=self.now) == cursor.purge(targets(ids), self.now)

    def bury(self, name: str) -> None:
        """Publishes for a subscription, and rejects what it gets."""
        self.publish(PLAIN, 0, ["a", "a"], to=topic_of(name))
        cursor = self.model.cursor(name)
        ids = [one for one in self.claimed_now(name) if cursor.holds(*targets([one]))]
        reasons = ["rejected"] * len(ids)
        outcomes = self.store.reject(self.keys[name], ids, now=self.now)
        assert outcomes == cursor.reject(targets(ids), reasons, self.now)

    @rule(data=st.data(), delay=DELAYS, nacked=st.integers(0, 2))
    def let_come_again(self, data: st.DataObject, delay: int | None, nacked: int) -> None:
        """What is dead is claimed once more behind a seek, and some of it waits: a dead letter of it remains."""
        name, cursor, keys = self.with_dead(data)
        if not cursor.dead:
            return
        first = min(cursor.dead)
        cursor.seek(first, self.now)
        self.store.seek(keys, "message", position=first, now=self.now)
        ids = [one for one in self.claimed_now(name) if cursor.holds(*targets([one]))][:nacked]
        delays = [delay] * len(ids)
        assert self.store.nack(keys, ids, delays, now=self.now) == cursor.nack(targets(ids), delays, self.now)

    def has_dead(self) -> bool:
        return any(cursor.dead for cursor in self.model.cursors.values())

    def dead_ids(self, data: st.DataObject, cursor: Cursor) -> list[Id]:
        choices = 3 * [Id(position, None, dead.message.created_at) for position, dead in cursor.dead.items()]
        choices += [Id(1, None, NOW - timedelta(days=1)), Id(99, None, NOW)]
        return data.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=6))

    @rule(data=st.data(), to=st.sampled_from(["earliest", "latest", "time", "message"]), offset=st.integers(-3, 30))
    def seek(self, data: st.DataObject, to: str, offset: int) -> None:
        _, cursor, keys = self.subscription(data)
        time = NOW + timedelta(seconds=offset)
        cursor.seek(time if to == "time" else offset if to == "message" else to, self.now)
        self.store.seek(keys, to, time=time, position=offset, now=self.now)

    @rule(data=st.data(), is_paused=st.sampled_from([True, False, False]))
    def pause(self, data: st.DataObject, is_paused: bool) -> None:
        name, cursor, _ = self.subscription(data)
        cursor.pause(self.now if is_paused else None)
        self.store.pause(name=name, is_paused=is_paused, now=self.now)

    @rule(data=st.data())
    def purge_all(self, data: st.DataObject) -> None:
        _, cursor, keys = self.subscription(data)
        assert self.store.purge_all(keys, now=self.now) == (cursor.settle_all(), False)

    @rule(name=st.sampled_from(sorted(TOPICS)), retention=st.sampled_from([0, 0, 10]), limit=st.sampled_from([2, 5000]))
    def trim(self, name: str, retention: int, limit: int) -> None:
        trimmed = self.store.trim(self.topics[name], retention, limit=limit, now=self.now)
        log = self.model.log(name)
        cursors = [cursor for cursor in self.model.cursors.values() if cursor.log is log]
        end = min(log.last, log.first + limit, log.before(self.now - timedelta(seconds=retention)) + 1)
        end = min([end, *(position for cursor in cursors for position, _ in pins(cursor))])
        gone = [position for position in log.messages if position < end]
        for position in gone:
            del log.messages[position]
            for cursor in cursors:
                cursor.forget(position)
        assert trimmed == len(gone)

    @rule(name=st.sampled_from(sorted(TOPICS)), limit=st.integers(1, 3))
    def trim_claims(self, name: str, limit: int) -> None:
        self.store.trim_claims(self.topics[name], limit=limit, now=self.now)

    @rule(data=st.data())
    def lift_stranded_retries(self, data: st.DataObject) -> None:
        _, _, keys = self.subscription(data)
        assert self.store.value("select fastpubsub.lift_stranded_retries(%s, %s)", *keys) == 0

    @rule(data=st.data())
    def explain(self, data: st.DataObject) -> None:
        _, cursor, keys = self.subscription(data)
        for position in range(1, cursor.log.last + 1):
            explained = self.store.explain(keys, position, now=self.now)
            found = (explained.state, explained.sought_at is not None)
            if explained.state in ("ahead", "waiting"):
                assert (explained.expired_at is not None) == cursor.is_too_late(position, self.now)
            assert (position, *found) == (position, *cursor.explain(position))
            if explained.state in ("leased", "waiting", "dead"):
                more = cursor.noted(explained.state, position)
                assert (explained.leased_at, explained.reason) == (more.get("leased_at"), more.get("reason"))
            assert bool(explained.may_be_dropped) == (explained.state == "settled" and cursor.dropped > 0)
            assert bool(explained.is_put_aside) == (position in cursor.aside() and explained.state == "ahead")
            holder = parse(explained.held_by) if explained.held_by else None
            assert (position, holder and holder.position) == (position, cursor.holder_of(position))
            failures = [(one["cause"], one["delivery_attempt"]) for one in json.loads(explained.failures or "[]")]
            expected = [(one.cause, one.delivery_attempt) for one in cursor.failures.get(position, [])]
            assert (position, failures) == (position, expected)
            if explained.state == "ahead" and not explained.is_put_aside and not cursor.aside():
                assert explained.before == cursor.ahead().index(position)

    @rule(data=st.data())
    def browse(self, data: st.DataObject) -> None:
        _, cursor, keys = self.subscription(data)
        assert self.store.browse(keys, "all").positions == list(cursor.log.messages)
        for state in ("ahead", "leased", "waiting", "dead"):
            found = [
                (one.position, one.attempts, one.since, None if state == "leased" else one.note, one.payload.encode())
                for one in self.store.browse(keys, state).seen
            ]
            assert (state, found) == (state, [browsed(cursor, state, *one) for one in cursor.browse(state)])

    def scrape(self, name: str, keys: Keys, retention: int) -> tuple[Metrics, Kept]:
        """Looks at one message more than the scrapes before it, and then at the rest."""
        started, judged = self.store.judge(keys, 1, judged=self.judged.get(name))
        metrics, _, kept = self.store.scrape(keys, judged=judged, retention=retention, now=self.now)
        # Of what was put aside it looks at one message.
        if not self.model.cursor(name).aside():
            assert started.oldest_created_at == (None if started.unjudged else metrics.oldest_created_at)
        self.judged[name] = judged
        return metrics, kept

    def relay(self) -> None:
        """Publishes what is in the outbox, as a server does at once."""
        super().relay()
        for name, topic in self.topics.items():
            self.compare_copies(self.model.log(name), topic)

    def compare_copies(self, log: Log, topic: int) -> None:
        """Copies of dead letters that came; and lets them be as long as PostgreSQL counts them."""
        query = (
            "select position, payload, attributes, ordering_key, created_at, pg_column_size(attributes)"
            " from fastpubsub.messages where topic_key = %s and position > %s and attributes ? %s order by position"
        )
        after = self.copied.get(log.topic.id, 0)
        came = [
            one
            for one in log.messages
            if one > after and DEAD_LETTER_ID in json.loads(log.messages[one].attributes or b"{}")
        ]
        rows = self.store.rows(query, topic, after, DEAD_LETTER_ID)
        assert [row[0] for row in rows] == came
        for position, payload, attributes, key, created_at, size in rows:
            copy = log.messages[position]
            assert json.loads(copy.attributes or b"") == json.loads(attributes)
            assert (copy.payload.decode(), copy.ordering_key, copy.created_at) == (payload, key, created_at)
            log.messages[position] = copy._replace(attributes=attributes.encode().ljust(size - 1))
        self.copied[log.topic.id] = log.last

    @invariant()
    def the_logs_are_the_same(self) -> None:
        self.relay()
        for name, topic in self.topics.items():
            assert self.store.positions(topic) == list(self.model.log(name).messages)
        waiting = [
            delayed.Waiting(one.key, one.due_at, one.message.payload.decode()) for one in self.log.delayed.values()
        ]
        assert delayed.listed(self.store, self.topic) == sorted(waiting, key=lambda one: (one.due_at, one.key))
        found = [
            (one.id, one.next_at, one.paused_at is not None, one.last_fired_at, one.fired, one.missed)
            for one in schedules.listed(self.store, self.topic)
        ]
        there = [one.schedule for _, one in sorted(self.log.schedules.items())]
        assert found == [
            (one.id, one.next_at, one.is_paused, one.last_fired_at, one.fired, one.missed) for one in there
        ]

    @invariant()
    def each_subscription_is_the_same(self) -> None:
        self.relay()
        for name, keys in self.keys.items():
            cursor = self.model.cursor(name)
            retention = self.now.second % 2 * 10
            metrics, kept = self.scrape(name, keys, retention)
            assert metrics == metrics_of(cursor)
            assert kept == kept_of(cursor, retention, self.now)
            assert metrics.acked >= 0
            assert self.store.leases(keys) == [
                Lease(
                    position,
                    lease.token,
                    lease.leased_at,
                    lease.expires_at,
                    lease.attempts,
                    self.consumers[lease.token][position],
                )
                for position, lease in sorted(cursor.leases.items())
            ]
            assert self.store.retries(keys) == [
                Retry(waiting.position, waiting.due_at, waiting.attempts, waiting.reason)
                for waiting in sorted(cursor.waiting + cursor.due, key=lambda one: one[:2])
            ]
            assert self.redrives_of(keys) == shown(cursor.redrives)
            assert self.store.dead_letters(keys) == [
                DeadLetter(
                    position,
                    dead.message.created_at,
                    dead.died_at,
                    dead.attempts,
                    dead.reason,
                    dead.message.payload.decode(),
                    dead.message.attributes.decode().rstrip() if dead.message.attributes else None,
                    dead.message.ordering_key,
                )
                for position, dead in sorted(cursor.dead.items())
            ]


@pytest.mark.long
def test_the_storage_does_what_the_model_does(store: Store) -> None:
    run_state_machine_as_test(
        partial(Machine, store),  # type: ignore[arg-type]
        settings=settings(
            max_examples=2 * EXAMPLES,
            stateful_step_count=60,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
