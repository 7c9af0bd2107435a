"""A limit on what all consumers of a subscription hold together."""

import random
from concurrent.futures import wait
from threading import Event

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Keys, Settles, Store, wait_until_blocked
from tests.database.usage import measure

HELD = 5


def test_a_claim_hands_out_what_is_left(store: Store) -> None:
    keys = store.create(max_in_flight=HELD, start="earliest")
    store.fill(keys.topic, 20)
    first = store.claim(keys, 3)
    assert (first.positions, first.limited_seconds) == ([1, 2, 3], None)
    second = store.claim(keys, [1, 4, 2], ["a", "b", "c"])
    assert (second.positions, second.limited_seconds) == ([4, 5], 0.5)
    assert [lease.consumer_id for lease in store.leases(keys)][-2:] == ["a", "b"]
    full = store.claim(keys)
    assert (full.positions, full.token, full.limited_seconds) == ([], None, 0.5)
    assert store.metrics(keys)[:5] == (15, 0, 5, 0, 0)
    store.ack(keys, first.ids[1:2])
    assert store.claim(keys).positions == [6]


def test_what_comes_again_counts_once_it_is_leased(store: Store) -> None:
    keys = store.create(max_in_flight=HELD, start="earliest", ack_deadline=30)
    store.fill(keys.topic, 20)
    claimed = store.claim(keys, 4)
    store.nack(keys, claimed.ids[:2], [0, 0])
    assert store.claim(keys).positions == [1, 2, 5]
    assert store.claim(keys).positions == []
    assert store.release(keys, now=NOW + 31 * SECOND).released == HELD
    assert len(store.claim(keys, now=NOW + 60 * SECOND).positions) == HELD
    assert store.claim(keys, now=NOW + 60 * SECOND).positions == []


def test_a_settle_makes_room_for_its_own_claim(store: Store) -> None:
    keys = store.create(max_in_flight=2, start="earliest")
    store.fill(keys.topic, 10)
    ids = store.claim(keys).ids
    _, claimed = store.settle_and_claim(keys, Settles(acks=(ids[:1], None)))
    assert (claimed.positions, claimed.limited_seconds) == ([3], 0.5)


def test_the_limit_can_be_changed_and_removed(store: Store) -> None:
    keys = store.create(max_in_flight=2, start="earliest")
    store.fill(keys.topic, 300)
    assert len(store.claim(keys).positions) == 2
    store.update_subscription("subscription", max_in_flight=4)
    assert len(store.claim(keys).positions) == 2
    store.update_subscription("subscription", max_in_flight=1)
    assert store.claim(keys).positions == []
    store.update_subscription("subscription", ack_deadline_seconds=50)
    assert store.claim(keys).positions == []
    store.update_subscription("subscription", max_in_flight=0)
    unlimited = store.claim(keys)
    assert (len(unlimited.positions), unlimited.limited_seconds) == (100, None)
    store.update_subscription("subscription", max_in_flight=105)
    assert len(store.claim(keys).positions) == 1


def test_a_seek_makes_room(store: Store) -> None:
    keys = store.create(max_in_flight=HELD, start="earliest")
    store.fill(keys.topic, 20)
    ids = store.claim(keys).ids
    store.seek(keys, "earliest")
    assert store.claim(keys).positions == [1, 2, 3, 4, 5]
    assert store.ack(keys, ids) == [2] * HELD
    assert store.claim(keys).positions == []


def test_waiting_consumers_are_ready_when_there_is_room(store: Store) -> None:
    keys = store.create(max_in_flight=HELD, start="earliest")
    store.fill(keys.topic, 5)
    query = "select ready, due_seconds, paused, room from fastpubsub.list_ready_subscriptions_2(%s, %s, %s)"
    ready = (query, [keys.topic], [keys.subscription], NOW)
    assert store.rows(*ready) == [(True, None, False, 5)]
    ids = store.claim(keys).ids
    assert store.rows(*ready) == []
    store.fill(keys.topic, 1)
    assert store.rows(*ready) == [(False, 0.5, False, 0)]
    store.ack(keys, ids[:2])
    assert store.rows(*ready) == [(True, None, False, 2)]


def test_explanations_say_so(store: Store) -> None:
    keys = store.create(max_in_flight=2, start="earliest")
    store.fill(keys.topic, 5)
    assert store.explain(keys, 3).at_limit is None
    ids = store.claim(keys).ids
    assert store.explain(keys, 3).at_limit == 2
    store.nack(keys, ids[:1], [10])
    assert store.explain(keys, 3).at_limit is None


def test_two_claims_at_once_share_the_limit(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(max_in_flight=HELD, start="earliest")
    watcher.fill(keys.topic, 20)
    with first.transaction():
        assert len(first.claim(keys, 4).positions) == 4
        waiting = background(second.claim, keys, 4)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result().positions == [5]


def test_an_ack_that_is_not_committed_makes_no_room(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    keys = first.create(max_in_flight=HELD, start="earliest")
    first.fill(keys.topic, 20)
    ids = first.claim(keys).ids
    with first.undone():
        assert first.ack(keys, ids) == [1] * HELD
        assert second.claim(keys).positions == []
    assert second.claim(keys).positions == []
    first.ack(keys, ids)
    assert second.claim(keys).positions == [6, 7, 8, 9, 10]


def test_everybody_at_once_never_holds_more(open_store: OpenStore, background: Background) -> None:
    watcher = open_store()
    keys = watcher.create(max_in_flight=HELD, start="earliest", backoff_min=0, backoff_max=0)
    watcher.fill(keys.topic, 300)
    is_over = Event()

    def consume(store: Store, draw: random.Random) -> None:
        for _ in range(60):
            ids = store.claim(keys, draw.randint(1, 4), now=None).ids
            store.nack(keys, ids[:1], [0] * len(ids[:1]), now=None)
            store.ack(keys, ids[1:])
            _, claimed = store.settle_and_claim(keys, Settles(), [2], now=None)
            store.ack(keys, claimed.ids)

    def watch(store: Store) -> int:
        most = 0
        while not is_over.is_set():
            most = max(most, store.metrics(keys).leased)
        return most

    watching = background(watch, open_store())
    consuming = [background(consume, open_store(), random.Random(seed)) for seed in range(3)]
    wait(consuming)
    is_over.set()
    for one in consuming:
        one.result()
    assert 1 < watching.result() <= HELD


def test_a_held_snapshot_does_not_slow_it(open_store: OpenStore) -> None:
    """No lease that was settled earlier is looked at again."""
    store, holder = open_store(), open_store()
    keys = store.create(max_in_flight=HELD, start="earliest")
    store.fill(keys.topic, 3000)
    with holder.transaction():
        holder.execute("set transaction isolation level repeatable read")
        holder.value("select count(*) from fastpubsub.leases")
        few = count_after(store, keys, 20)
        many = count_after(store, keys, 400)
    assert many <= few + 5


def count_after(store: Store, keys: Keys, claims: int) -> int:
    """The blocks that counting looks at after so many claims."""
    for _ in range(claims):
        store.ack(keys, store.claim(keys, 1, now=None).ids)
    query = "select * from fastpubsub.room_in_flight(%s, %s, 5)"
    with store.transaction():
        return measure(store, lambda: store.row(query, *keys))[1].blocks
