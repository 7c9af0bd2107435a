"""Everything together: random calls in virtual time do to the database what they do to a model in plain Python.

FASTPUBSUB_TEST_EXAMPLES=2000 looks longer.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.database.model import Subscription, Topic
from tests.database.store import (
    EVERYTHING,
    EXAMPLES,
    NOW,
    OF_SUBSCRIPTIONS,
    DeadLetter,
    Id,
    Keys,
    Lease,
    Released,
    Retry,
    Settings,
    Store,
)

PAYLOADS = st.sampled_from(
    ['{"a": 1}', '{"a": 1.0, "b": "x"}', '{"a": 2, "b": true}', '{"a": [1], "b": "x"}', '{"b": "x"}', "{}"]
)
FILTERS = st.sampled_from([None, "{}", '{"a": [1]}', '{"a": [1, 2], "b": ["x", true]}', '{"b": ["x"]}'])
NAMES = st.sampled_from(["first", "second"])
SETTINGS = st.builds(
    Settings,
    filter=FILTERS,
    ack_deadline=st.sampled_from([5, 30]),
    max_attempts=st.integers(1, 3),
    backoff_min=st.sampled_from([0, 1, 10]),
    backoff_max=st.sampled_from([10, 20]),
    start=st.sampled_from(["earliest", "latest", "time"]),
)
BYTES = st.sampled_from([EVERYTHING, EVERYTHING, 1, 20, 40])
DELAYS = st.one_of(st.none(), st.integers(0, 20))


class Machine(RuleBasedStateMachine):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.now = NOW
        self.model = Topic()
        self.keys: dict[str, Keys] = {}
        self.handed_out: dict[str, list[Id]] = {}
        self.tokens: set[int] = set()

    @initialize(settings=SETTINGS, payloads=st.lists(PAYLOADS, min_size=4, max_size=8))
    def begin(self, settings: Settings, payloads: list[str]) -> None:
        self.topic = self.store.create_topic(now=self.now)
        self.subscribe("first", settings)
        self.publish(payloads, 0)

    def teardown(self) -> None:
        try:
            self.store.delete_topic()
            while self.store.empty_purges(3) is not None:
                pass
            for table in ("messages", *OF_SUBSCRIPTIONS, "heads", "cursors", "subscriptions", "topics"):
                query = f"select count(*) from fastpubsub.{table} where topic_key = %s"
                assert (table, self.store.value(query, self.topic)) == (table, 0)
        finally:
            self.store.connection.rollback()

    def subscription(self, data: st.DataObject) -> tuple[str, Subscription, Keys]:
        name = data.draw(st.sampled_from(sorted(self.keys)))
        return name, self.model.subscriptions[name], self.keys[name]

    def ids(self, data: st.DataObject, name: str, subscription: Subscription) -> list[Id]:
        """Of deliveries now and earlier, with and without token, sometimes twice, sometimes wrong."""
        held = [
            Id(position, lease.token, subscription.created_at(position))
            for position, lease in subscription.leases.items()
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

    @rule(payloads=st.lists(PAYLOADS, min_size=1, max_size=6), late=st.integers(0, 3))
    def publish(self, payloads: list[str], late: int) -> None:
        """Sometimes by a clock that is behind."""
        now = self.now - timedelta(milliseconds=late)
        assert self.store.publish(self.topic, payloads, now=now) == self.model.publish(payloads, now)

    @rule(name=NAMES, settings=SETTINGS)
    def subscribe(self, name: str, settings: Settings) -> None:
        if name in self.keys:
            with self.store.refused("FP409"):
                self.store.create_subscription(name, settings=settings, now=self.now)
            return
        settings.start_time = self.now - timedelta(seconds=3) if settings.start == "time" else None
        self.model.subscribe(name, settings)
        self.keys[name] = self.store.create_subscription(name, settings=settings, now=self.now)
        self.handed_out[name] = []

    @precondition(lambda self: len(self.keys) > 1)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        name, _, keys = self.subscription(data)
        self.store.delete_subscription(name)
        del self.model.subscriptions[name], self.keys[name], self.handed_out[name]
        with self.store.refused("FP404"):
            self.store.claim(keys, now=self.now)
        assert self.store.orphans() == {}

    @rule(limit=st.integers(1, 5))
    def empty_purges(self, limit: int) -> None:
        self.store.empty_purges(limit)
        assert self.store.orphans() == {}

    @rule(data=st.data(), settings=SETTINGS, with_filter=st.booleans())
    def patch(self, data: st.DataObject, settings: Settings, with_filter: bool) -> None:
        name, subscription, _ = self.subscription(data)
        changes: dict[str, Any] = {
            "ack_deadline_seconds": settings.ack_deadline,
            "max_delivery_attempts": settings.max_attempts,
            "backoff_min_seconds": settings.backoff_min,
            "backoff_max_seconds": settings.backoff_max,
        }
        if with_filter:
            changes |= {"change_filter": True, "filter": settings.filter}
        else:
            settings.filter = subscription.settings.filter
        self.store.update_subscription(name, **changes)
        subscription.settings = settings

    @rule(data=st.data(), limits=st.lists(st.integers(1, 4), min_size=1, max_size=3), max_bytes=BYTES)
    def claim(self, data: st.DataObject, limits: list[int], max_bytes: int) -> None:
        name, _, _ = self.subscription(data)
        self.claim_of(name, limits, max_bytes, data.draw(st.sampled_from([1, 3, 50_000])))

    def claim_of(self, name: str, limits: list[int], max_bytes: int, scan_rows: int) -> None:
        subscription, keys = self.model.subscriptions[name], self.keys[name]
        consumers = [f"consumer {index}" for index in range(len(limits))]
        claimed = self.store.claim(keys, limits, consumers, now=self.now, max_bytes=max_bytes, scan_rows=scan_rows)
        expected = subscription.claim(sum(limits), self.now, max_bytes, scan_rows)
        assert claimed.positions == [delivery.position for delivery in expected]
        assert claimed.attempts == [delivery.attempts for delivery in expected]
        assert claimed.payloads == [delivery.message.payload for delivery in expected]
        assert claimed.created_at == [delivery.message.created_at for delivery in expected]
        assert claimed.scanned == subscription.position
        assert claimed.last == self.model.last or not expected
        if not expected:
            return
        assert claimed.token is not None
        assert claimed.token not in self.tokens
        self.tokens.add(claimed.token)
        shares = [consumer for consumer, limit in zip(consumers, limits, strict=True) for _ in range(limit)]
        subscription.lease(expected, shares, claimed.token, self.now)
        self.handed_out[name] += claimed.ids

    @rule(data=st.data())
    def claim_and_reject(self, data: st.DataObject) -> None:
        """Dead letters are where much can happen and little comes by chance."""
        name, subscription, keys = self.subscription(data)
        before = len(self.handed_out[name])
        self.claim_of(name, [2], EVERYTHING, 50_000)
        ids = self.handed_out[name][before:]
        reasons = ["rejected"] * len(ids)
        if all(subscription.holds(one) for one in ids):
            assert self.store.reject(keys, ids, now=self.now) == subscription.reject(ids, reasons, self.now)

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        name, subscription, keys = self.subscription(data)
        ids = self.ids(data, name, subscription)
        assert self.store.ack(keys, ids) == subscription.ack(ids)

    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        name, subscription, keys = self.subscription(data)
        ids = self.ids(data, name, subscription)
        delays = data.draw(st.one_of(st.none(), st.lists(DELAYS, min_size=len(ids), max_size=len(ids))))
        assert self.store.nack(keys, ids, delays, now=self.now) == subscription.nack(ids, delays, self.now)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        name, subscription, keys = self.subscription(data)
        ids = self.ids(data, name, subscription)
        reasons = [f"reason {index}" for index in range(len(ids))]
        assert self.store.reject(keys, ids, reasons, now=self.now) == subscription.reject(ids, reasons, self.now)

    @rule(data=st.data(), seconds=st.integers(0, 60))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        name, subscription, keys = self.subscription(data)
        ids = self.ids(data, name, subscription)
        assert self.store.extend(keys, ids, seconds, now=self.now) == subscription.extend(ids, seconds, self.now)

    @rule(data=st.data(), share=st.integers(1, 5))
    def give_back(self, data: st.DataObject, share: int) -> None:
        name, subscription, keys = self.subscription(data)
        if self.handed_out[name]:
            token = data.draw(st.sampled_from(list(dict.fromkeys(one.token or 0 for one in self.handed_out[name]))))
            positions = [one.position for one in self.handed_out[name] if one.token == token][:share]
            given = subscription.give_back(positions, token, self.now)
            assert self.store.give_back(keys, positions, token, now=self.now) == given

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, subscription, keys = self.subscription(data)
        assert self.store.release(keys, now=self.now) == Released(*subscription.release(1000, self.now))

    @precondition(lambda self: self.has_dead())
    @rule(data=st.data())
    def reprocess(self, data: st.DataObject) -> None:
        _, subscription, keys = self.subscription(data)
        ids = self.dead_ids(data, subscription)
        assert self.store.reprocess(keys, ids, now=self.now) == subscription.reprocess(ids, self.now)

    @precondition(lambda self: self.has_dead())
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        _, subscription, keys = self.subscription(data)
        ids = self.dead_ids(data, subscription)
        assert self.store.purge(keys, ids) == subscription.purge(ids)

    def has_dead(self) -> bool:
        return any(subscription.dead for subscription in self.model.subscriptions.values())

    def dead_ids(self, data: st.DataObject, subscription: Subscription) -> list[Id]:
        choices = 3 * [Id(position, None, dead.message.created_at) for position, dead in subscription.dead.items()]
        choices += [Id(1, None, NOW - timedelta(days=1)), Id(99, None, NOW)]
        return data.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=6))

    @rule(data=st.data(), to=st.sampled_from(["earliest", "latest", "time", "message"]), offset=st.integers(-3, 30))
    def seek(self, data: st.DataObject, to: str, offset: int) -> None:
        _, subscription, keys = self.subscription(data)
        time = NOW + timedelta(seconds=offset)
        target = {
            "earliest": self.model.first - 1,
            "latest": self.model.last,
            "time": self.model.before(time),
            "message": max(min(offset, self.model.last + 1), self.model.first) - 1,
        }[to]
        subscription.seek(target, self.now)
        self.store.seek(keys, to, time=time, position=offset, now=self.now)

    @rule(retention=st.sampled_from([0, 0, 10]), limit=st.sampled_from([2, 5000]))
    def trim(self, retention: int, limit: int) -> None:
        trimmed = self.store.trim(self.topic, retention, limit=limit, now=self.now)
        assert trimmed == self.model.trim(retention, limit, self.now)

    @rule(limit=st.integers(1, 3))
    def trim_claims(self, limit: int) -> None:
        self.store.trim_claims(self.topic, limit=limit, now=self.now)

    @rule(data=st.data())
    def lift_stranded_retries(self, data: st.DataObject) -> None:
        _, _, keys = self.subscription(data)
        assert self.store.value("select fastpubsub.lift_stranded_retries(%s, %s)", *keys) == 0

    @invariant()
    def the_log_is_the_same(self) -> None:
        assert self.store.positions(self.topic) == sorted(self.model.messages)

    @invariant()
    def each_subscription_is_the_same(self) -> None:
        for name, keys in self.keys.items():
            subscription = self.model.subscriptions[name]
            metrics = self.store.metrics(keys)
            assert metrics == subscription.metrics()
            assert metrics.acked >= 0
            assert self.store.leases(keys) == [
                Lease(position, lease.token, lease.expires_at, lease.attempts, lease.consumer_id)
                for position, lease in sorted(subscription.leases.items())
            ]
            assert self.store.retries(keys) == [
                Retry(waiting.position, waiting.due_at, waiting.attempts) for waiting in sorted(subscription.waiting)
            ]
            assert self.store.dead_letters(keys) == [
                DeadLetter(
                    position,
                    dead.message.created_at,
                    dead.died_at,
                    dead.attempts,
                    dead.reason,
                    dead.message.payload,
                    None,
                )
                for position, dead in sorted(subscription.dead.items())
            ]


def test_the_storage_does_what_the_model_does(store: Store) -> None:
    run_state_machine_as_test(
        partial(Machine, store),  # type: ignore[arg-type]
        settings=settings(
            max_examples=2 * EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
