"""A limit on how many messages a second all consumers of a subscription get."""

import random
import time
from concurrent.futures import wait
from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import MICROSECOND, NOW, SECOND, Settles, Store, wait_until_blocked

HOUR = timedelta(hours=1)
READY = "select ready, due_seconds, room from fastpubsub.list_ready_subscriptions_2(%s, %s, %s)"


def test_a_second_brings_so_many(store: Store) -> None:
    keys = store.create(rate_limit=10, start="earliest")
    store.fill(keys.topic, 100)
    first = store.claim(keys, 4)
    assert (len(first.positions), first.limited_seconds) == (4, None)
    assert (store.claim(keys).positions, store.claim(keys).token) == ([5, 6, 7, 8, 9, 10], None)
    assert store.claim(keys).limited_seconds == pytest.approx(0.1)
    assert store.claim(keys, now=NOW + 0.25 * SECOND).positions == [11, 12]
    later = store.claim(keys, now=NOW + 0.25 * SECOND)
    assert later.positions == []
    assert later.limited_seconds == pytest.approx(0.05)
    assert store.claim(keys, now=NOW + 0.3 * SECOND).positions == [13]
    # A second fills the bucket, and an hour does no more.
    assert len(store.claim(keys, now=NOW + HOUR).positions) == 10
    assert store.claim(keys, now=NOW + HOUR).positions == []


def test_less_than_one_a_second(store: Store) -> None:
    keys = store.create(rate_limit=0.25, start="earliest")
    store.fill(keys.topic, 5)
    claimed = store.claim(keys)
    assert claimed.positions == [1]
    assert claimed.limited_seconds == pytest.approx(4, abs=0.001)
    almost = store.claim(keys, now=NOW + 4 * SECOND - 1000 * MICROSECOND)
    assert (almost.positions, almost.limited_seconds) == ([], 0.05)
    assert store.claim(keys, now=NOW + 4 * SECOND).positions == [2]
    assert store.claim(keys, now=NOW + 7.9 * SECOND).positions == []
    assert store.claim(keys, now=NOW + 8 * SECOND).positions == [3]


@pytest.mark.parametrize("rate", [2.3, 3, 7.3, 1000])
def test_it_is_exact_over_a_long_time(store: Store, rate: float) -> None:
    """What times are rounded by does not add up."""
    count = int(rate) + 200
    keys = store.create(rate_limit=rate, start="earliest")
    store.fill(keys.topic, count)
    draw = random.Random(1)
    seconds = 0.0
    given = len(store.claim(keys, 1000).positions)
    assert given < count
    while given < count:
        seconds += draw.choice([0.001, 0.05, 0.3, 0.9]) / rate
        given += len(store.claim(keys, 1000, now=NOW + seconds * SECOND).positions)
        assert given <= max(rate, 1) + rate * seconds + 0.01
        assert given >= min(max(rate, 1) + rate * seconds - 1.01, count)


def test_redeliveries_count(store: Store) -> None:
    keys = store.create(rate_limit=2, start="earliest", backoff_min=0, backoff_max=0)
    store.fill(keys.topic, 5)
    store.nack(keys, store.claim(keys, 1).ids, [0])
    assert store.claim(keys).positions == [1]
    assert store.claim(keys).positions == []


def test_a_settle_and_a_seek_fill_nothing(store: Store) -> None:
    keys = store.create(rate_limit=2, start="earliest")
    store.fill(keys.topic, 5)
    ids = store.claim(keys).ids
    _, claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)))
    assert (claimed.positions, claimed.limited_seconds) == ([], 0.5)
    store.seek(keys, "earliest")
    assert store.claim(keys).positions == []
    assert store.claim(keys, now=NOW + SECOND).positions == [1, 2]


def test_a_filter_looks_no_further_than_the_limit(store: Store) -> None:
    keys = store.create(rate_limit=2, start="earliest", filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 2}', '{"a": 1}', '{"a": 2}', '{"a": 1}', '{"a": 1}'])
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.filtered, claimed.limited_seconds) == ([2, 4], 2, 0.5)
    assert store.metrics(keys)[:5] == (1, 0, 2, 0, 0)


def test_with_a_limit_in_flight_the_tighter_one_counts(store: Store) -> None:
    keys = store.create(rate_limit=4, max_in_flight=3, start="earliest")
    store.fill(keys.topic, 20)
    held = store.claim(keys)
    assert (len(held.positions), held.limited_seconds) == (3, 0.5)
    store.ack(keys, held.ids)
    one = store.claim(keys)
    assert one.positions == [4]
    assert one.limited_seconds == pytest.approx(0.25)
    later = store.claim(keys, now=NOW + 10 * SECOND)
    assert (later.positions, later.limited_seconds) == ([5, 6], 0.5)


def test_an_ordered_subscription(store: Store) -> None:
    keys = store.create(rate_limit=3, start="earliest", ordered=True)
    store.publish(keys.topic, ["{}"] * 6, ordering_keys=["a", "a", "b", "a", "b", None])
    claimed = store.claim(keys, [2, 2], ["one", "two"])
    assert claimed.positions == [1, 2, 3]
    assert claimed.limited_seconds == pytest.approx(1 / 3, abs=0.001)
    assert store.claim(keys).positions == []
    store.ack(keys, claimed.ids)
    assert len(store.claim(keys, now=NOW + SECOND).positions) == 3


def test_the_limit_can_be_changed_and_removed(store: Store) -> None:
    keys = store.create(rate_limit=0.001, start="earliest")
    store.fill(keys.topic, 300)
    assert len(store.claim(keys).positions) == 1
    assert store.claim(keys).limited_seconds == pytest.approx(1000, abs=1)
    store.update_subscription("subscription", ack_deadline_seconds=50)
    assert store.claim(keys).positions == []
    # What a slow rate owes does not hold up a faster one.
    store.update_subscription("subscription", rate_limit=50)
    assert len(store.claim(keys).positions) == 50
    store.update_subscription("subscription", rate_limit=0)
    assert len(store.claim(keys).positions) == 100
    store.update_subscription("subscription", rate_limit=1)
    assert len(store.claim(keys, now=NOW + 2 * SECOND).positions) == 1


def test_a_clock_that_is_set_back_stops_nothing(store: Store) -> None:
    keys = store.create(rate_limit=10, start="earliest")
    store.fill(keys.topic, 100)
    assert len(store.claim(keys).positions) == 10
    assert len(store.claim(keys, now=NOW - HOUR).positions) == 10
    assert store.claim(keys, now=NOW - HOUR).positions == []


def test_who_waits_is_told_when_there_is_room(store: Store) -> None:
    keys = store.create(rate_limit=2, start="earliest")
    store.fill(keys.topic, 5)
    arguments = ([keys.topic], [keys.subscription])
    assert store.row(READY, *arguments, NOW) == (True, None, 2)
    store.claim(keys)
    assert store.row(READY, *arguments, NOW + 0.2 * SECOND) == (False, pytest.approx(0.3, abs=0.001), 0)
    assert store.row(READY, *arguments, NOW + 0.5 * SECOND) == (True, None, 1)


def test_explanations_and_loads_say_so(store: Store) -> None:
    keys = store.create(rate_limit=0.001, start="earliest")
    store.fill(keys.topic, 5)
    loads = "select at_rate_limit from fastpubsub.list_loads_2(null, 60)"
    assert (store.explain(keys, 3).at_rate_limit, store.value(loads)) == (None, None)
    ids = store.claim(keys, now=None).ids
    assert (store.explain(keys, 3).at_rate_limit, store.value(loads)) == (0.001, 0.001)
    store.nack(keys, ids, [0], now=None)
    assert (store.explain(keys, 1).state, store.explain(keys, 1).at_rate_limit) == ("waiting", 0.001)


def test_two_claims_at_once_share_the_bucket(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(rate_limit=5, start="earliest")
    watcher.fill(keys.topic, 20)
    with first.transaction():
        assert len(first.claim(keys, 4).positions) == 4
        waiting = background(second.claim, keys, 4)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result().positions == [5]


def test_everybody_at_once_gets_no_more(open_store: OpenStore, background: Background) -> None:
    watcher = open_store()
    keys = watcher.create(rate_limit=50, start="earliest")
    watcher.fill(keys.topic, 1000)

    def consume(store: Store, draw: random.Random) -> int:
        got = 0
        for _ in range(60):
            claimed = store.claim(keys, draw.randint(1, 4), now=None)
            store.ack(keys, claimed.ids)
            got += len(claimed.positions)
        return got

    started = time.monotonic()
    consuming = [background(consume, open_store(), random.Random(seed)) for seed in range(3)]
    wait(consuming)
    lasted = time.monotonic() - started
    assert 50 <= sum(one.result() for one in consuming) <= 50 + 50 * lasted + 1
