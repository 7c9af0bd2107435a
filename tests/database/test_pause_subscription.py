"""pause_subscription: nothing is handed out, everything else goes on, and polls write nothing."""

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, SETTLED, Keys, Settles, Store, wait_until_blocked


@pytest.fixture
def keys(store: Store) -> Keys:
    """One message leased, one waiting and due, one ahead; paused."""
    keys = store.create()
    store.publish(keys.topic, ["1", "2", "3"])
    store.nack(keys, store.claim(keys, 2).ids[1:], [0])
    store.pause()
    return keys


def test_nothing_is_handed_out(store: Store, keys: Keys) -> None:
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.is_paused) == ([], True)
    store.pause(is_paused=False)
    claimed = store.claim(keys)
    assert (claimed.positions, claimed.is_paused) == ([2, 3], False)


def test_an_empty_one_says_so_too(store: Store) -> None:
    keys = store.create()
    assert store.claim(keys).is_paused is False
    store.pause()
    assert store.claim(keys).is_paused is True


def test_settling_goes_on(store: Store, keys: Keys) -> None:
    (one,) = store.leased(keys)
    outcomes, claimed = store.settle_and_claim(keys, Settles(acks=([one], None)), [5])
    assert (outcomes[0], claimed.positions, claimed.is_paused) == ([SETTLED], [], True)
    store.publish(keys.topic, ["4"])
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.waiting, metrics.leased, metrics.acked) == (2, 1, 0, 1)


def test_twice_is_once(store: Store, keys: Keys) -> None:
    query = "select paused_at from fastpubsub.list_subscriptions_4(0, 1)"
    store.pause(now=NOW + SECOND)
    assert store.value(query) == NOW
    store.pause(is_paused=False)
    store.pause(is_paused=False)
    assert store.value(query) is None
    store.delete_subscription()
    with store.refused("FP404"):
        store.pause()
    with store.refused("FP404"):
        store.claim(keys)


def test_those_who_wait_are_told(store: Store, keys: Keys) -> None:
    other = store.create_subscription("other")
    store.publish(keys.topic, ["4"])
    assert (store.ready(other, keys), store.paused(other, keys)) == ([(1, True, None), (2, False, None)], [2])
    store.pause(is_paused=False)
    assert (store.ready(keys), store.paused(keys)) == ([(1, True, None)], [])


def test_why_it_does_not_come(store: Store, keys: Keys) -> None:
    explained = [(one.state, one.paused_at) for one in (store.explain(keys, position) for position in (1, 2, 3))]
    assert explained == [("leased", None), ("waiting", NOW), ("ahead", NOW)]


def test_a_poll_takes_no_transaction_id_and_writes_nothing(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    store.publish(keys.topic, ["1"])
    store.pause()
    with store.transaction():
        assert store.claim(keys).positions == []
        assert store.value("select pg_current_xact_id_if_assigned()") is None
    query = "select * from fastpubsub.claim_messages_2(%s, %s, '{1}', '{c}', 1000)"
    assert store.written(query, *keys) == 0


def test_a_claim_that_waited_for_the_pause(open_store: OpenStore, background: Background) -> None:
    """It has read that there is work before the pause was committed."""
    store, other, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.publish(keys.topic, ["1"])
    with store.transaction():
        store.pause()
        call = background(other.claim, keys)
        wait_until_blocked(watcher, other)
    assert (call.result().positions, call.result().is_paused) == ([], True)
