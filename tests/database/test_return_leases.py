"""return_leases: what no consumer has seen goes back without the attempt."""

from tests.database.store import GONE, NOW, SECOND, STALE, Store


def test_it_comes_again_at_once_as_the_same_attempt(store: Store) -> None:
    keys = store.create(max_attempts=2, backoff_min=100)
    store.publish(keys.topic, ["1", "2"])
    first = store.claim(keys)
    assert store.give_back(keys, first.positions, first.token) == 2
    assert store.ack(keys, first.ids) == [GONE] * 2
    second = store.claim(keys)
    assert (second.positions, second.attempts) == ([1, 2], [1, 1])
    store.nack(keys, second.ids, [0, 0])
    third = store.claim(keys, now=NOW + SECOND)
    assert third.attempts == [2, 2]
    assert store.give_back(keys, third.positions, third.token) == 2
    assert store.claim(keys, now=NOW + 2 * SECOND).attempts == [2, 2]


def test_giving_back_again_and_again_never_kills(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.publish(keys.topic, ["1"])
    for number in range(20):
        claimed = store.claim(keys, now=NOW + number * SECOND)
        assert claimed.attempts == [1]
        store.give_back(keys, claimed.positions, claimed.token, now=NOW + number * SECOND)
    assert store.dead_letters(keys) == []


def test_only_with_the_token_of_the_claim(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    old = store.claim(keys)
    store.nack(keys, old.ids, [0])
    new = store.claim(keys)
    assert store.give_back(keys, old.positions, old.token) == 0
    assert store.give_back(keys, [1, 99], 7) == 0
    assert store.ack(keys, old.ids) == [STALE]
    assert store.give_back(keys, new.positions, new.token) == 1
