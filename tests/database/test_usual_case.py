"""end_whole_leases and claim_stretch do what the general procedures do, and are what is usually called."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.database.conftest import Background, OpenStore
from tests.database.store import (
    EXAMPLES,
    GONE,
    NOW,
    SECOND,
    SETTLED,
    STALE,
    Claimed,
    Id,
    Keys,
    Row,
    Settings,
    Settles,
    Store,
    wait_until_blocked,
)

GENERAL = {"read_log", "lease_runs", "take_leases", "cut_leases", "take_due_retries"}
LARGE = '"' + "x" * 600 + '"'

STEPS = st.one_of(
    st.tuples(
        st.just("publish"),
        st.integers(1, 250),
        st.sampled_from(["{}", LARGE]),
        st.sampled_from([None, None, 5, 100]),
    ),
    st.tuples(
        st.just("exchange"),
        st.one_of(
            st.just("the last claim"),
            st.tuples(st.integers(0, 120), st.integers(1, 120)),
            st.lists(st.integers(0, 400), max_size=12),
        ),
        st.lists(st.integers(1, 230), max_size=4),
        st.booleans(),
    ),
    st.tuples(st.just("nack"), st.lists(st.integers(0, 400), max_size=5), st.sampled_from([0, 3])),
    st.tuples(st.just("pass"), st.sampled_from([1, 7, 70])),
    st.tuples(st.just("seek"), st.integers(1, 300)),
    st.tuples(st.just("pause"), st.booleans()),
    st.just(("purge",)),
)


class Twins:
    """Two subscriptions of a topic; the second has a limit that is never reached, and settles before it claims.

    So neither of its calls is one of the usual case.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.topic = store.create_topic()
        usual = Settings(start="earliest", backoff_min=2, backoff_max=2)
        self.usual = store.create_subscription("usual", settings=usual)
        self.general = store.create_subscription("general", settings=replace(usual, max_in_flight=100_000))
        self.both = (self.usual, self.general)
        self.now = NOW
        self.claims: list[tuple[list[Id], list[Id]]] = []

    def publish(self, count: int, payload: str, ttl: int | None) -> None:
        self.store.fill(self.topic, count, payload, ttl=ttl, now=self.now)

    def exchange(self, which: Any, limits: list[int], bare: bool) -> None:
        ours, theirs = self.pick(which, bare=bare)
        consumers = [f"consumer {number}" for number in range(len(limits))]
        settles = Settles(acks=(ours, None))
        arguments: dict[str, Any] = {"max_bytes": 50_000, "now": self.now}
        (outcomes, *_), claimed = self.store.settle_and_claim(self.usual, settles, limits, consumers, **arguments)
        assert outcomes == (self.store.ack(self.general, theirs, now=self.now) if theirs else [])
        if limits:
            expected = self.store.claim(self.general, limits, consumers, **arguments)
            assert comparable(claimed) == comparable(expected)
            self.claims.append((apart(claimed.ids, limits), apart(expected.ids, limits)))

    def nack(self, which: list[int], delay: int) -> None:
        ids = self.pick(which)
        if ids[0]:
            delays = [delay] * len(ids[0])
            ours, theirs = (
                self.store.nack(keys, some, delays, now=self.now) for keys, some in zip(self.both, ids, strict=True)
            )
            assert ours == theirs

    def pick(self, which: Any, *, bare: bool = False) -> tuple[list[Id], list[Id]]:
        """Of the last claim all or a part, or some of all that were ever claimed, by chance several times."""
        last = self.claims[-1] if self.claims else ([], [])
        if which == "the last claim":
            picked = last
        elif isinstance(which, tuple):
            start, count = which
            picked = (last[0][start : start + count], last[1][start : start + count])
        else:
            ours, theirs = ([id_ for claim in self.claims for id_ in claim[side]] for side in (0, 1))
            places = [place % len(ours) for place in which] if ours else []
            picked = ([ours[place] for place in places], [theirs[place] for place in places])
        if bare:
            ours, theirs = (
                [one._replace(token=None, created_at=self.created_at(one.position)) for one in side] for side in picked
            )
            return ours, theirs
        return picked

    def created_at(self, position: int) -> datetime:
        query = "select created_at from fastpubsub.messages where topic_key = %s and position = %s"
        return self.store.value(query, self.topic, position)  # type: ignore[no-any-return]

    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        for keys in self.both:
            self.store.release(keys, now=self.now)

    def seek(self, position: int) -> None:
        for keys in self.both:
            self.store.seek(keys, "message", position=position, now=self.now)

    def pause(self, is_paused: bool) -> None:
        for name in ("usual", "general"):
            self.store.pause(is_paused=is_paused, name=name, now=self.now)

    def purge(self) -> None:
        for keys in self.both:
            self.store.purge_all(keys, now=self.now)

    def stored(self, keys: Keys) -> list[Row]:
        queries = (
            "select position, last_position, leased_at, expires_at, attempts, revived, consumer_id"
            " from fastpubsub.leases",
            "select position, due_at, attempts, reason from fastpubsub.retries",
            "select position, reason from fastpubsub.dead_letters",
        )
        where = "where topic_key = %s and subscription_key = %s order by 1, 2"
        cursor = (
            "select position, retry_due_at::text, retry_position, routed, purged, dropped, filtered, ttl_expired"
            " from fastpubsub.claims where topic_key = %s and subscription_key = %s order by sequence desc limit 1"
        )
        return [row for query in queries for row in self.store.rows(f"{query} {where}", *keys)] + self.store.rows(
            cursor, *keys
        )


def apart(ids: list[Id], limits: Sequence[int]) -> list[Id]:
    """Those of each consumer are runs of their own, as in requests: next to a token, the time does not matter."""
    ends = list(accumulate(limits))
    return [one._replace(created_at=NOW + bisect_right(ends, place) * SECOND) for place, one in enumerate(ids)]


def comparable(claimed: Claimed) -> tuple[object, ...]:
    """Without the token; whether what is nothing is zero or null is not told apart."""
    return tuple(value or None for name, value in vars(claimed).items() if name != "token")


@given(st.lists(STEPS, min_size=3, max_size=14))
@hypothesis_settings(max_examples=EXAMPLES)
def test_both_ways_do_the_same(store: Store, steps: list[tuple[Any, ...]]) -> None:
    with store.undone():
        twins = Twins(store)
        twins.publish(150, "{}", None)
        twins.exchange([], [100, 7], bare=False)
        do: dict[str, Callable[..., None]] = {
            "publish": twins.publish,
            "exchange": twins.exchange,
            "nack": twins.nack,
            "pass": twins.wait,
            "seek": twins.seek,
            "pause": twins.pause,
            "purge": twins.purge,
        }
        for name, *arguments in steps:
            do[name](*arguments)
            assert twins.stored(twins.usual) == twins.stored(twins.general)


@contextmanager
def called(store: Store) -> Iterator[dict[str, int]]:
    """Fills in how often which procedures were called."""
    query = "select funcname, calls from pg_stat_xact_user_functions where schemaname = 'fastpubsub'"
    store.execute("set local track_functions = 'pl'")
    before: dict[str, int] = dict(store.rows(query))
    calls: dict[str, int] = {}
    yield calls
    calls |= {name: count - before.get(name, 0) for name, count in store.rows(query) if count > before.get(name, 0)}


@pytest.mark.parametrize(("consumers", "size"), [(1, 1), (1, 100), (4, 100), (8, 10)])
def test_an_exchange_of_whole_leases_calls_nothing_else(store: Store, consumers: int, size: int) -> None:
    keys = store.create(start="earliest")
    store.fill(keys.topic, 2 * consumers * size)
    limits, names = [size] * consumers, [f"consumer {number}" for number in range(consumers)]
    ids = apart(store.claim(keys, limits, names).ids, limits)
    with called(store) as calls:
        (outcomes, *_), claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)), limits, names)
    assert (outcomes, len(claimed.positions)) == ([SETTLED] * len(ids), len(ids))
    assert calls == dict.fromkeys(
        ("settle_and_claim_2", "begin_call", "lock_subscription", "end_whole_leases", "claim_stretch"), 1
    )


def test_a_claim_of_a_stretch_calls_nothing_else(store: Store) -> None:
    keys = store.create(start="earliest")
    store.fill(keys.topic, 20, ttl=60)
    with called(store) as calls:
        assert len(store.claim(keys, 10).positions) == 10
    assert calls == dict.fromkeys(("claim_messages_2", "begin_call", "lock_subscription", "claim_stretch"), 1)


def test_what_is_not_usual_is_seen(store: Store) -> None:
    keys = store.create(start="earliest")
    store.fill(keys.topic, 20)
    ids = store.claim(keys, 10).ids
    store.nack(keys, ids[5:], [0] * 5)
    with called(store) as calls:
        (outcomes, *_), claimed = store.settle_and_claim(keys, Settles(acks=(ids[1:3], None)), [10])
    assert (outcomes, claimed.positions) == ([SETTLED] * 2, [6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    assert set(calls) >= GENERAL


def test_what_comes_after_the_first_that_is_not_whole_is_settled_too(store: Store) -> None:
    """One whole lease, a part of one, one that is gone, one of an old token, and one whole lease again."""
    keys = store.create(start="earliest")
    store.fill(keys.topic, 10)
    ids = apart(store.claim(keys, [2] * 5, list("abcde")).ids, [2] * 5)
    store.ack(keys, ids[4:6])
    old = ids[6]._replace(token=7)
    settles = Settles(acks=([*ids[:3], *ids[4:6], old, *ids[8:]], None))
    (outcomes, *_), _ = store.settle_and_claim(keys, settles, [], [])
    assert outcomes == [SETTLED] * 3 + [GONE] * 2 + [STALE] + [SETTLED] * 2
    assert [lease.position for lease in store.leases(keys)] == [4, 7, 8]


def test_a_lease_that_another_call_ends_meanwhile_is_gone(open_store: OpenStore, background: Background) -> None:
    one, other, watcher = open_store(), open_store(), open_store()
    keys = one.create(start="earliest")
    one.fill(keys.topic, 30, now=NOW)
    ids = apart(one.claim(keys, [10, 10], ["a", "b"]).ids, [10, 10])
    with other.transaction():
        other.ack(keys, ids[10:])
        exchanged = background(one.settle_and_claim, keys, Settles(acks=(ids, None)), [10])
        wait_until_blocked(watcher, one, by=other)
    (outcomes, *_), claimed = exchanged.result()
    assert outcomes == [SETTLED] * 10 + [GONE] * 10
    assert claimed.positions == list(range(21, 31))


def test_two_exchanges_of_the_same_leases_settle_them_once(open_store: OpenStore, background: Background) -> None:
    one, other, watcher = open_store(), open_store(), open_store()
    keys = one.create(start="earliest")
    one.fill(keys.topic, 40)
    ids = apart(one.claim(keys, [10, 10], ["a", "b"]).ids, [10, 10])
    settles = Settles(acks=(ids, None))
    with other.transaction():
        _, first = other.settle_and_claim(keys, settles, [10])
        exchanged = background(one.settle_and_claim, keys, settles, [10])
        wait_until_blocked(watcher, one, by=other)
    (outcomes, *_), second = exchanged.result()
    assert outcomes == [GONE] * 20
    assert (first.positions, second.positions) == (list(range(21, 31)), list(range(31, 41)))


@pytest.mark.parametrize("change", ["seek", "purge", "pause"])
def test_what_an_exchange_waits_for_counts(open_store: OpenStore, background: Background, change: str) -> None:
    """It reads what the holder of the cursor has committed, not what was there when it began."""
    one, other, watcher = open_store(), open_store(), open_store()
    keys = one.create(start="earliest")
    one.fill(keys.topic, 30)
    ids = one.claim(keys, 10).ids
    later: datetime = NOW + SECOND
    with other.transaction():
        if change == "seek":
            other.seek(keys, "message", position=5, now=later)
        elif change == "purge":
            other.purge_all(keys, now=later)
        else:
            other.pause(now=later)
        exchanged = background(one.settle_and_claim, keys, Settles(acks=(ids, None)), [10], now=later)
        wait_until_blocked(watcher, one, by=other)
    (outcomes, *_), claimed = exchanged.result()
    expected = {
        "seek": (GONE, list(range(5, 15)), False),
        "purge": (GONE, [], False),
        "pause": (SETTLED, [], True),
    }
    assert (outcomes, claimed.positions, bool(claimed.is_paused)) == (
        [expected[change][0]] * 10,
        *expected[change][1:],
    )


IN_ORDER = (
    "settle_and_claim_2",
    "begin_call",
    "lock_subscription",
    "end_acked",
    "end_leases",
    "claim_in_order",
    "end_turns",
)


def publish_keys(store: Store, keys: Keys, names: Sequence[str]) -> None:
    store.publish(keys.topic, ["{}"] * len(names), ordering_keys=names)


@pytest.mark.parametrize(
    ("names", "taken", "looks", "reads", "waits"),
    [
        ("a" * 60, {"a": 40}, 1, 1, None),
        ("aabb" * 15, {"a": 28, "b": 12}, 2, 2, None),
        ("abcd" * 15, {"a": 14, "b": 13, "c": 13}, 2, 1, 0),
    ],
)
def test_keys_that_go_on_are_handed_over(
    store: Store, names: str, taken: dict[str, int], looks: int, reads: int, waits: int | None
) -> None:
    """They wait in no table between the ack and the claim of one exchange. A look at several keys reads them, too."""
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, names)
    first = store.claim(keys, 4)
    assert store.claim(keys).positions == []
    with called(store) as calls:
        (outcomes, *_), second = store.settle_and_claim(keys, Settles(acks=(first.ids, None)), [40])
    assert (outcomes, second.limited_seconds) == ([SETTLED] * 4, waits)
    of_keys = {key: [place for place, name in enumerate(names, 1) if name == key and place > 4] for key in taken}
    assert second.positions == [place for key, count in taken.items() for place in of_keys[key][:count]]
    assert calls == dict.fromkeys((*IN_ORDER, "lease_turns"), 1) | {"take_put_aside": looks, "read_claimed": reads}


def test_a_stretch_of_many_keys_is_read_once(store: Store) -> None:
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, [str(number) for number in range(60)])
    ids = store.claim(keys, 20).ids
    with called(store) as calls:
        (outcomes, *_), claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)), [20])
    assert (outcomes, claimed.positions) == ([SETTLED] * 20, list(range(21, 41)))
    read = ("first_position", "read_log_in_order", "take_stretch", "lease_turns")
    assert calls == dict.fromkeys((*IN_ORDER, *read), 1)


def test_what_is_missing_for_a_batch_is_close(store: Store) -> None:
    """A claim whose stretch has a message of a busy key does not look at a longer one instead."""
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, "a")
    store.claim(keys)
    publish_keys(store, keys, ["a" if number == 7 else str(number) for number in range(60)])
    with called(store) as calls:
        claimed = store.claim(keys, 20)
    assert claimed.positions == [*range(2, 9), *range(10, 23)]
    assert claimed.scanned == 22
    assert (calls["take_stretch"], "judge_stretch" in calls) == (2, False)


def test_what_nobody_takes_in_the_same_call_waits(store: Store) -> None:
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, "abcabcabc")
    first = store.claim(keys, 3)
    store.claim(keys)
    _, second = store.settle_and_claim(keys, Settles(acks=(first.ids, None)), [1, 1], ["one", "two"])
    assert (second.positions, second.shares, second.limited_seconds) == ([4, 5], [1, 1], 0)
    assert [retry.position for retry in store.retries(keys)] == [6]
    third = store.claim(keys)
    assert (third.positions, third.limited_seconds) == ([6, 9], None)


def test_what_waited_before_comes_first(store: Store) -> None:
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, "ababab")
    one, other = store.claim(keys, 1), store.claim(keys, 1)
    store.claim(keys)
    store.ack(keys, one.ids)
    _, claimed = store.settle_and_claim(keys, Settles(acks=(other.ids, None)), [1, 1], ["one", "two"])
    assert claimed.positions == [3, 4]
    _, claimed = store.settle_and_claim(keys, Settles(acks=(claimed.ids, None)), [4], now=NOW + SECOND)
    assert claimed.positions == [5, 6]


def test_a_part_of_a_turn_frees_no_key(store: Store) -> None:
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, "aaaab")
    first = store.claim(keys, 2)
    (outcomes, *_), claimed = store.settle_and_claim(keys, Settles(acks=(first.ids[:1], None)), [10])
    assert (outcomes, claimed.positions) == ([SETTLED], [5])
    (outcomes, *_), claimed = store.settle_and_claim(keys, Settles(acks=(first.ids[1:], None)), [10])
    assert (outcomes, claimed.positions) == ([SETTLED], [3, 4])


def test_what_has_no_room_is_not_handed_over(store: Store) -> None:
    keys = store.create(start="earliest", ordered=True)
    publish_keys(store, keys, "abcabc")
    first = store.claim(keys, 3)
    store.claim(keys)
    _, claimed = store.settle_and_claim(keys, Settles(acks=(first.ids, None)), [10], max_bytes=3)
    assert (claimed.positions, claimed.limited_seconds) == ([4], 0)
    assert store.claim(keys).positions == [5, 6]
