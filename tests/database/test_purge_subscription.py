"""purge_subscription: everything but dead letters is settled, counts add up, and nothing comes again."""

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import GONE, NOW, SECOND, Store, wait_until_blocked


def test_everything_but_dead_letters(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, [str(n) for n in range(1, 8)])
    done, dead, nacked, *held = store.claim(keys, 5).ids
    store.ack(keys, [done])
    store.reject(keys, [dead])
    store.nack(keys, [nacked])
    before = store.metrics(keys)
    assert store.purge_all(keys) == (5, False)
    after = store.metrics(keys)
    assert (after.ahead, after.waiting, after.leased, after.dead, after.acked) == (0, 0, 0, 1, before.acked)
    assert store.ack(keys, held) == [GONE, GONE]
    assert store.claim(keys, now=NOW + 1000 * SECOND).positions == []
    assert store.purge_all(keys) == (0, False)
    store.publish(keys.topic, ["8"])
    assert store.claim(keys).positions == [8]


def test_what_a_filter_would_have_let_through(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'] * 50)
    assert store.purge_all(keys, 10) == (50, True)
    store.publish(keys.topic, ['{"a": 1}', '{"a": 2}'])
    assert store.purge_all(keys) == (1, False)


def test_what_became_of_a_message(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    store.claim(keys, 1)
    store.purge_all(keys, now=NOW + SECOND)
    store.publish(keys.topic, ["4"])
    found = [store.explain(keys, position) for position in (1, 2, 3, 4)]
    assert [one.state for one in found] == ["settled", "purged", "purged", "ahead"]
    assert [one.sought_at for one in found] == [NOW + SECOND] * 3 + [None]


def test_a_reprocessed_dead_letter(store: Store) -> None:
    """It does not become one again, as after a seek: it is what somebody wanted to be rid of."""
    keys = store.create()
    store.publish(keys.topic, ["1"])
    (one,) = store.claim(keys).ids
    store.reject(keys, [one])
    store.reprocess(keys, [one.bare._replace(created_at=NOW)])
    assert store.purge_all(keys) == (1, False)
    metrics = store.metrics(keys)
    assert (metrics.waiting, metrics.dead, metrics.acked) == (0, 0, 0)
    assert store.value("select count(*) from fastpubsub.revived") == 0


@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_while_a_consumer_settles(open_store: OpenStore, background: Background, settle: str) -> None:
    """What was settled before is not counted, and what is settled after is gone."""
    store, other, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    first, second = store.claim(keys).ids
    with store.transaction():
        getattr(store, settle)(keys, [first])
        call = background(other.purge_all, keys)
        wait_until_blocked(watcher, other)
    assert call.result() == (1 if settle == "ack" else 2, False)
    assert store.ack(keys, [second]) == [GONE]
    assert store.claim(keys, now=NOW + 1000 * SECOND).positions == []
