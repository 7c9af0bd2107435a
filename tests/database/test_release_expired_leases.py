"""release_expired_leases and list_expired_leases: who dies on a message uses up its attempts (invariant 4)."""

from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import (
    GONE,
    MICROSECOND,
    NOW,
    SECOND,
    SETTLED,
    Keys,
    Released,
    Settings,
    Store,
    wait_until_blocked,
)

EXPIRED = NOW + 60 * SECOND


def test_a_consumer_that_dies_again_and_again(store: Store) -> None:
    """Nothing but claims and the release: after the last attempt the message is dead."""
    keys = store.create(ack_deadline=60, max_attempts=3, backoff_min=10, backoff_max=600)
    store.publish(keys.topic, ['{"n": 1}'])
    now = NOW
    for attempt in (1, 2, 3):
        claimed = store.claim(keys, now=now)
        assert claimed.attempts == [attempt]
        now += 60 * SECOND
        assert store.release(keys, now=now - MICROSECOND) == Released(0, 0)
        assert store.release(keys, now=now) == Released(1, int(attempt == 3))
        if attempt < 3:
            delay = 10 * 2 ** (attempt - 1) * SECOND
            assert store.claim(keys, now=now + delay - MICROSECOND).positions == []
            now += delay
    assert store.claim(keys, now=now + timedelta(days=30)).positions == []
    (dead,) = store.dead_letters(keys)
    assert (dead.attempts, dead.died_at) == (3, now)
    assert dead.reason == "lease expired on delivery attempt 3 of 3"


def test_expired_leases_are_listed_by_subscription(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    other = store.create_subscription("other", settings=Settings(ack_deadline=10))
    store.publish(keys.topic, ["1", "2"])
    store.claim(keys)
    store.claim(other, 1)
    assert store.expired(now=NOW + 10 * SECOND - MICROSECOND) == []
    assert store.expired(now=NOW + 10 * SECOND) == [(*other, "other", 1)]
    assert sorted(store.expired(now=EXPIRED)) == sorted([(*keys, "subscription", 2), (*other, "other", 1)])


def test_a_look_back_leaves_out_what_an_earlier_pass_has_seen(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    later = EXPIRED + 30 * SECOND
    assert store.expired(now=later, look_back=30) == []
    assert store.release(keys, now=later, look_back=30) == Released(0, 0)
    assert store.expired(now=later, look_back=30.001) == [(*keys, "subscription", 1)]
    assert store.release(keys, now=later, look_back=30.001) == Released(1, 0)


def test_a_limit_takes_the_oldest_deadlines(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1", "2", "3"])
    ids = store.claim(keys).ids
    store.extend(keys, ids, [30, 10, 20])
    assert store.release(keys, now=EXPIRED, limit=2) == Released(2, 0)
    assert [lease.position for lease in store.leases(keys)] == [1]
    assert store.release(keys, now=EXPIRED, limit=2) == Released(1, 0)


def test_only_leases_of_the_subscription(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    other = store.create_subscription("other", settings=Settings(ack_deadline=60))
    store.publish(keys.topic, ["1"])
    store.claim(keys)
    store.claim(other)
    assert store.release(keys, now=EXPIRED) == Released(1, 0)
    assert len(store.leases(other)) == 1


def test_a_missing_subscription_is_nothing_to_do(store: Store) -> None:
    """It was deleted since the list was made."""
    assert store.release(Keys(store.create_topic(), 1)) == Released(0, 0)


def test_an_ack_that_is_not_committed_is_left_alone(open_store: OpenStore) -> None:
    """The release skips its row instead of waiting, and deletes exactly what it locked."""
    acking, store = open_store(), open_store()
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1", "2"])
    (first,), (second,) = store.claim(keys, 1).ids, store.claim(keys, 1).ids
    with acking.transaction():
        assert acking.ack(keys, [first]) == [SETTLED]
        assert store.release(keys, now=EXPIRED) == Released(1, 0)
    assert store.leases(keys) == []
    assert [retry.position for retry in store.retries(keys)] == [second.position]


def test_a_lease_that_is_being_extended_survives(open_store: OpenStore, background: Background) -> None:
    extending, store, watcher = open_store(), open_store(), open_store()
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1", "2"])
    first, second = store.claim(keys).ids
    with extending.transaction():
        assert extending.extend(keys, [first], 600) == [SETTLED]
        waiting = background(store.release, keys, now=EXPIRED)
        wait_until_blocked(watcher, store, by=extending)
    assert waiting.result() == Released(1, 0)
    assert [(lease.position, lease.expires_at) for lease in store.leases(keys)] == [(1, NOW + 600 * SECOND)]
    assert store.ack(keys, [first, second]) == [SETTLED, GONE]


def test_one_process_at_a_time(open_store: OpenStore, background: Background) -> None:
    first, second, third, watcher = (open_store() for _ in range(4))
    keys = watcher.create(ack_deadline=60)
    watcher.publish(keys.topic, ["1", "2"])
    watcher.claim(keys, 1)
    watcher.claim(keys, 1)
    with first.transaction():
        assert first.release(keys, now=EXPIRED, limit=1) == Released(1, 0)
        assert second.release(keys, now=EXPIRED) == Released(0, 0)
        waiting = background(third.release, keys, now=EXPIRED, wait=True)
        wait_until_blocked(watcher, third, by=first)
    assert waiting.result() == Released(1, 0)


def test_a_job_is_free_again_when_its_process_is_gone(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    keys = second.create(ack_deadline=60)
    second.publish(keys.topic, ["1"])
    second.claim(keys)
    first.execute("begin")
    first.release(keys, now=EXPIRED)
    first.connection.close()
    assert second.release(keys, now=EXPIRED, wait=True) == Released(1, 0)


def test_claims_wait_for_a_release_and_lose_nothing(open_store: OpenStore, background: Background) -> None:
    releasing, store, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(ack_deadline=60, backoff_min=0)
    watcher.publish(keys.topic, ["1", "2"])
    watcher.claim(keys, 1)
    with releasing.transaction():
        assert releasing.release(keys, now=EXPIRED) == Released(1, 0)
        waiting = background(store.claim, keys, now=EXPIRED)
        wait_until_blocked(watcher, store, by=releasing)
    assert waiting.result().positions == [1, 2]


@pytest.mark.parametrize("count", [1, 49, 50, 51, 1000])
def test_many(store: Store, count: int) -> None:
    keys = store.create(ack_deadline=60, max_attempts=1)
    store.fill(keys.topic, count)
    store.claim(keys, count)
    assert store.release(keys, now=EXPIRED) == Released(count, count)
    assert len(store.dead_letters(keys)) == count
