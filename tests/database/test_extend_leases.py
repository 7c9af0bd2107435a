"""extend_leases: the one update of a lease."""

from datetime import timedelta

from tests.database.conftest import Background, OpenStore
from tests.database.store import GONE, MICROSECOND, NOW, SECOND, SETTLED, Released, Store, wait_until_blocked


def test_deadlines_move_to_so_many_seconds_from_now(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1", "2", "3"])
    ids = store.claim(keys).ids
    later = NOW + 10 * SECOND
    assert store.extend(keys, ids[:2], [100, 5], now=later) == [SETTLED] * 2
    assert [lease.expires_at for lease in store.leases(keys)] == [
        later + 100 * SECOND,
        later + 5 * SECOND,
        NOW + 60 * SECOND,
    ]


def test_an_extended_lease_keeps_its_token_and_attempt(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    before = store.leases(keys)
    ids = store.claim(keys).ids
    before = store.leases(keys)
    store.extend(keys, ids, 999)
    assert [lease._replace(expires_at=NOW) for lease in store.leases(keys)] == [
        lease._replace(expires_at=NOW) for lease in before
    ]
    assert store.ack(keys, ids) == [SETTLED]


def test_it_expires_at_the_new_deadline(store: Store) -> None:
    keys = store.create(ack_deadline=60)
    store.publish(keys.topic, ["1"])
    store.extend(keys, store.claim(keys).ids, 600)
    deadline = NOW + timedelta(seconds=600)
    assert store.release(keys, now=deadline - MICROSECOND) == Released(0, 0)
    assert store.release(keys, now=deadline) == Released(1, 0)


def test_one_that_waited_for_the_release_is_gone(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(ack_deadline=60)
    watcher.publish(keys.topic, ["1"])
    ids = watcher.claim(keys).ids
    with first.transaction():
        assert first.release(keys, now=NOW + 60 * SECOND) == Released(1, 0)
        waiting = background(second.extend, keys, ids, 60)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result() == [GONE]
    assert [retry.position for retry in watcher.retries(keys)] == [1]


def test_one_that_waited_counts_from_after_the_wait(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.publish(keys.topic, ["1"])
    ids = watcher.claim(keys).ids
    with first.transaction():
        first.extend(keys, ids, 1)
        waiting = background(second.extend, keys, ids, 60, now=None)
        wait_until_blocked(watcher, second, by=first)
        waited_until = watcher.value("select clock_timestamp()")
    assert waiting.result() == [SETTLED]
    assert watcher.leases(keys)[0].expires_at >= waited_until + 60 * SECOND
