"""The order of locks (invariant 11): everything at once on the same messages, and nobody deadlocks or is in the way."""

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, Id, Keys, Settings, Settles, Store

LATER = NOW + timedelta(days=1)
MESSAGES = 60
CALLS = 60

Call = Callable[[Store, Keys, random.Random], object]


def some(store: Store, keys: Keys, draw: random.Random) -> list[Id]:
    """In no order."""
    ids = store.leased(keys)
    return draw.sample(ids, min(len(ids), 20))


def some_bare(draw: random.Random) -> list[Id]:
    return [Id(position, None, NOW) for position in draw.sample(range(1, MESSAGES + 1), 20)]


def some_settles(store: Store, keys: Keys, draw: random.Random) -> Settles:
    ids = some(store, keys, draw)
    some_ids = [draw.sample(ids, min(len(ids), 4)) for _ in range(5)]
    acks, nacks, returns, rejects, extensions = some_ids
    reasons = ["no"] * len(rejects[:1])
    return Settles(
        (acks, None),
        (nacks, [0] * len(nacks)),
        (returns, None),
        (rejects[:1], reasons),
        (extensions, [60] * len(extensions)),
    )


CALLS_AT_ONCE: list[Call] = [
    lambda store, keys, draw: store.publish(keys.topic, ["1"]),
    lambda store, keys, draw: store.claim(keys, 20, now=LATER),
    lambda store, keys, draw: store.ack(keys, some(store, keys, draw)[:3]),
    lambda store, keys, draw: store.nack(keys, some(store, keys, draw), now=LATER),
    lambda store, keys, draw: store.reject(keys, some(store, keys, draw)[:3]),
    lambda store, keys, draw: store.extend(keys, some(store, keys, draw), 60),
    lambda store, keys, draw: store.extend(keys, some_bare(draw), 0),
    lambda store, keys, draw: store.settle_and_claim(keys, some_settles(store, keys, draw), [5], now=LATER),
    lambda store, keys, draw: store.give_back(keys, [draw.randrange(MESSAGES)], 7),
    lambda store, keys, draw: store.release(keys, now=LATER, wait=draw.random() < 0.5),
    lambda store, keys, draw: store.reprocess(keys, some_bare(draw), now=LATER),
    lambda store, keys, draw: store.purge(keys, some_bare(draw)[:1]),
    lambda store, keys, draw: store.seek(keys, draw.choice(["earliest", "latest", "message"]), position=30, now=LATER),
    lambda store, keys, draw: store.purge_all(keys, now=LATER) if draw.random() < 0.1 else None,
    lambda store, keys, draw: store.pause(is_paused=draw.random() < 0.1),
    lambda store, keys, draw: store.trim(keys.topic, limit=1, wait=draw.random() < 0.5, now=LATER),
    lambda store, keys, draw: store.trim_claims(keys.topic),
    lambda store, keys, draw: store.update_subscription("subscription", max_delivery_attempts=draw.randint(1, 5)),
    lambda store, keys, draw: store.update_subscription(
        "subscription", max_backlog=draw.choice([0, 20]), on_full=draw.choice(["drop_oldest", "dead_letter"])
    ),
    lambda store, keys, draw: store.drop_backlog(keys, draw.choice([1, 1000]), now=LATER),
    lambda store, keys, draw: recreate(store, draw),
    lambda store, keys, draw: store.execute("select fastpubsub.lift_stranded_retries(%s, %s)", *keys),
]


def recreate(store: Store, draw: random.Random) -> None:
    store.delete_subscription("other")
    store.create_subscription("other", settings=Settings(start=draw.choice(["earliest", "latest"]), max_backlog=10_000))
    store.empty_purges(10)


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_once_on_the_same_messages(open_store: OpenStore, background: Background, seed: int) -> None:
    """Any error fails, a deadlock (40P01) or a second holder (23505) too, and in the end everything adds up."""
    stores = [open_store() for _ in range(6)]
    watcher = open_store()
    keys = watcher.create(ack_deadline=60, backoff_min=0)
    watcher.create_subscription("other")
    watcher.fill(keys.topic, MESSAGES)

    def work(store: Store, draw: random.Random) -> None:
        # Only one may recreate: the others would find the name missing.
        calls = CALLS_AT_ONCE if store is stores[0] else [*CALLS_AT_ONCE[:-2], CALLS_AT_ONCE[-1]]
        for _ in range(CALLS):
            draw.choice(calls)(store, keys, draw)

    for future in [background(work, store, random.Random(f"{seed}{n}")) for n, store in enumerate(stores)]:
        future.result()
    assert watcher.value("select deadlocks from pg_stat_database where datname = current_database()") == 0
    assert watcher.orphans() == {}
    assert watcher.rows("select * from fastpubsub.list_stranded_retries()") == []
    positions = watcher.positions(keys.topic)
    assert positions == list(range(positions[0], positions[-1] + 1))
    metrics, cursor = watcher.metrics(keys), watcher.cursor(keys)
    assert metrics.acked >= 0
    gone = metrics.dead + metrics.acked + metrics.dropped + cursor.purged
    assert metrics.waiting + metrics.leased + gone == cursor.routed
    on_their_way = [lease.position for lease in watcher.leases(keys)] + [one.position for one in watcher.retries(keys)]
    assert len(set(on_their_way)) == len(on_their_way)
    assert max(on_their_way, default=0) <= cursor.position


def test_settling_the_same_messages_in_every_order(open_store: OpenStore, background: Background) -> None:
    """Rows are locked in the order of positions, whatever the order of the ids."""
    stores = [open_store() for _ in range(4)]
    keys = stores[0].create(max_attempts=1000)
    stores[0].fill(keys.topic, 200)
    ids = stores[0].claim(keys, 200).ids

    def extend(store: Store, draw: random.Random) -> None:
        for _ in range(30):
            assert store.extend(keys, draw.sample(ids, 200), 60) == [1] * 200

    for future in [background(extend, store, random.Random(n)) for n, store in enumerate(stores)]:
        future.result()

    def ack(store: Store, draw: random.Random) -> int:
        return sum(store.ack(keys, draw.sample(ids, 200)))

    futures = [background(ack, store, random.Random(n)) for n, store in enumerate(stores)]
    assert sum(future.result() for future in futures) == 200
    assert stores[0].value("select deadlocks from pg_stat_database where datname = current_database()") == 0
