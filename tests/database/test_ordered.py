"""Ordered subscriptions: who gets what of a key, and when."""

import pytest

from tests.database.store import NOW, SECOND, Keys, Settles, Store


@pytest.fixture
def keys(store: Store) -> Keys:
    return store.create(ordered=True, max_attempts=3)


def publish(store: Store, keys: Keys, letters: str) -> None:
    """A message for each letter, which is its key; without one for a space."""
    names = [None if letter == " " else letter for letter in letters]
    store.publish(keys.topic, ["{}"] * len(letters), ordering_keys=names)


def test_a_key_goes_to_one_consumer_at_a_time(store: Store, keys: Keys) -> None:
    publish(store, keys, "aabb ab")
    first = store.claim(keys, 3)
    assert first.positions == [1, 2, 3]
    second = store.claim(keys)
    assert second.positions == [5], "a and b are busy"
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids[2:])
    third = store.claim(keys)
    assert third.positions == [4, 7]
    store.ack(keys, first.ids[:1])
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids[1:2])
    assert store.claim(keys, now=NOW + SECOND).positions == [6]
    assert store.claim(keys, now=NOW + SECOND).positions == []


def busy(store: Store) -> list[int]:
    return [position for (position,) in store.rows("select position from fastpubsub.busy_keys order by position")]


def test_nothing_is_left_when_everything_is_settled(store: Store, keys: Keys) -> None:
    publish(store, keys, "abcabc ")
    claimed = store.claim(keys)
    assert claimed.positions == [1, 2, 3, 4, 5, 6, 7]
    assert busy(store) == [4, 5, 6]
    store.ack(keys, claimed.ids)
    assert busy(store) == []
    assert store.claim(keys).positions == []
    publish(store, keys, "a")
    assert store.claim(keys).positions == [8]


def test_a_nack_takes_with_it_what_was_leased_after_it(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaab")
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[1:2])
    assert [lease.position for lease in store.leases(keys)] == [1, 5]
    assert store.ack(keys, claimed.ids[2:4]) == [0, 0]
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == [], "the first one is with its consumer"
    store.ack(keys, claimed.ids[:1])
    assert store.claim(keys, now=NOW + 9 * SECOND).positions == [], "the backoff holds"
    again = store.claim(keys, now=NOW + 10 * SECOND)
    assert (again.positions, again.attempts) == ([2, 3, 4], [2, 1, 1])


def test_expiry_keeps_the_order(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaab")
    claimed = store.claim(keys)
    store.extend(keys, claimed.ids[2:3], 600)
    later = NOW + 61 * SECOND
    assert store.release(keys, now=later).released == 3
    assert store.leases(keys) == []
    publish(store, keys, "a")
    again = store.claim(keys, now=later + 10 * SECOND)
    assert (again.positions, again.attempts) == ([1, 2, 3, 4], [2, 2, 1, 2])
    store.ack(keys, again.ids, now=later)
    assert store.claim(keys, now=later + 20 * SECOND).positions == [5]


def test_a_dead_letter_lets_its_key_go_on(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaa")
    claimed = store.claim(keys, 2)
    store.reject(keys, claimed.ids[:1])
    assert [lease.position for lease in store.leases(keys)] == [2]
    store.ack(keys, claimed.ids[1:])
    assert store.claim(keys).positions == [3]


def test_consumers_of_one_call_share_no_key(store: Store, keys: Keys) -> None:
    publish(store, keys, "ababab c")
    claimed = store.claim(keys, [2, 3, 4], ["one", "two", "three"])
    assert (claimed.positions, claimed.shares) == ([1, 2, 7, 8], [2, 2, 0])
    assert {lease.consumer_id for lease in store.leases(keys)} == {"one", "two"}


def test_metrics_add_up(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaaaaabb")
    claimed = store.claim(keys, 3)
    assert store.claim(keys).positions == [7, 8]
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 0, 5, 0, 0)
    store.nack(keys, claimed.ids[:2])
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 3, 2, 0, 0)
    assert store.explain(keys, 5).is_put_aside
    assert [store.explain(keys, n).state for n in range(1, 9)] == ["waiting"] * 3 + ["ahead"] * 3 + ["leased"] * 2


def test_settling_and_claiming_in_one_call(store: Store, keys: Keys) -> None:
    publish(store, keys, "aab")
    claimed = store.claim(keys, 1)
    assert store.claim(keys).positions == [3]
    outcomes, after = store.settle_and_claim(keys, Settles(acks=(claimed.ids, None)))
    assert (outcomes[0], after.positions) == ([1], [2])


def test_a_seek_forgets_who_was_busy(store: Store, keys: Keys) -> None:
    publish(store, keys, "aaa")
    store.claim(keys, 1)
    store.claim(keys)
    store.seek(keys, "earliest")
    assert busy(store) == []
    assert store.claim(keys).positions == [1, 2, 3]


def test_a_filter(store: Store) -> None:
    keys = store.create(ordered=True, filter='{"n": [1]}')
    payloads = ['{"n": 1}', '{"n": 2}', '{"n": 1}', '{"n": 2}']
    store.publish(keys.topic, payloads, ordering_keys=["a"] * 4)
    first = store.claim(keys, 1)
    assert first.positions == [1]
    assert store.claim(keys).positions == []
    store.ack(keys, first.ids)
    second = store.claim(keys)
    assert second.positions == [3]
    store.ack(keys, second.ids)
    assert busy(store) == []
    assert store.metrics(keys).filtered == 2


def turns(store: Store, keys: Keys) -> list[tuple[int, int, int | None]]:
    query = (
        "select position, last_position, turn from fastpubsub.leases where topic_key = %s and subscription_key = %s "
        "order by position"
    )
    return [(first, last, turn) for first, last, turn in store.rows(query, *keys)]


def test_messages_that_are_all_of_their_key_share_a_lease(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab cdef")
    claimed = store.claim(keys)
    assert turns(store, keys) == [(1, 7, 0)]
    assert busy(store) == []
    publish(store, keys, "cg")
    assert store.claim(keys).positions == [9], "c is busy"
    assert busy(store) == [8]
    store.ack(keys, claimed.ids)
    after = store.claim(keys)
    assert after.positions == [8]
    store.ack(keys, after.ids)
    assert busy(store) == []
    assert turns(store, keys) == [(9, 9, 0)]


def test_a_part_of_a_lease_of_many_keys(store: Store, keys: Keys) -> None:
    publish(store, keys, "abcd")
    claimed = store.claim(keys)
    publish(store, keys, "abcd")
    assert store.claim(keys).positions == []
    store.ack(keys, claimed.ids[1:2])
    assert turns(store, keys) == [(1, 1, 0), (3, 4, 0)]
    assert store.claim(keys).positions == [6]
    store.nack(keys, claimed.ids[2:3])
    store.reject(keys, claimed.ids[3:])
    assert store.claim(keys, now=NOW + SECOND).positions == [8], "after a dead letter its key goes on"
    again = store.claim(keys, now=NOW + 10 * SECOND)
    assert (again.positions, again.attempts) == ([3, 7], [2, 1])
    store.extend(keys, claimed.ids[:1], 600)
    assert store.claim(keys, now=NOW + 10 * SECOND).positions == []
    store.ack(keys, claimed.ids[:1])
    assert store.claim(keys, now=NOW + 11 * SECOND).positions == [5]


def test_what_no_claim_has_passed_waits_for_a_message_that_failed(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc")
    claimed = store.claim(keys)
    publish(store, keys, "a")
    store.nack(keys, claimed.ids[:1])
    assert busy(store) == [1]
    assert store.claim(keys, now=NOW + SECOND).positions == []
    assert store.claim(keys, now=NOW + 10 * SECOND).positions == [1, 4]


def test_a_lease_of_many_keys_that_expires(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab c")
    store.claim(keys)
    publish(store, keys, "b")
    assert store.claim(keys).positions == []
    later = NOW + 61 * SECOND
    assert store.release(keys, now=later).released == 4
    assert busy(store) == [1, 4, 5]
    publish(store, keys, "a")
    again = store.claim(keys, now=later + 10 * SECOND)
    assert (again.positions, again.attempts) == ([1, 2, 5, 3, 4], [2, 2, 1, 2, 2])
    assert busy(store) == [4, 5, 6]
    store.ack(keys, again.ids, now=later)
    assert store.claim(keys, now=later + 20 * SECOND).positions == [6]


def test_a_key_that_comes_again_further_on_in_the_same_claim(store: Store) -> None:
    """The log is read in stretches, of which each sees whose keys the ones before it took."""
    keys = store.create(ordered=True, filter='{"n": [1]}')
    payloads = ['{"n": 1}' if n in (0, 199) else '{"n": 2}' for n in range(200)]
    names = ["a" if n in (0, 199) else f"b{n}" for n in range(200)]
    store.publish(keys.topic, payloads, ordering_keys=names)
    first = store.claim(keys)
    assert first.positions == [1]
    assert busy(store) == [200]
    store.ack(keys, first.ids)
    assert store.claim(keys).positions == [200]


def test_returned_unseen(store: Store, keys: Keys) -> None:
    publish(store, keys, "ab")
    claimed = store.claim(keys)
    store.give_back(keys, [1], claimed.token)
    again = store.claim(keys, now=NOW + SECOND)
    assert (again.positions, again.attempts) == ([1], [1])
    assert turns(store, keys) == [(1, 1, 1), (2, 2, 0)]
    store.ack(keys, again.ids + claimed.ids[1:])
    assert busy(store) == []


def test_metrics_of_what_is_behind_a_lease_of_many_keys(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc")
    store.claim(keys)
    publish(store, keys, "aabd")
    assert store.claim(keys).positions == [7]
    found = store.metrics(keys)
    assert (found.ahead, found.waiting, found.leased, found.dead, found.acked) == (3, 0, 4, 0, 0)
    assert [n for n in range(1, 8) if store.explain(keys, n).is_put_aside] == [4, 5, 6]


def test_a_long_log_of_busy_keys_is_passed(store: Store, keys: Keys) -> None:
    publish(store, keys, "abc" * 2000 + "d")
    first = store.claim(keys, 6)
    assert first.positions == [1, 2, 3, 4, 5, 6]
    assert store.claim(keys).positions == [6001], "whose key is free, behind those that are busy"
    assert busy(store) == [5998, 5999, 6000]
    store.ack(keys, first.ids)
    assert store.claim(keys, 3).positions == [7, 8, 9]


def test_what_has_no_room_in_an_answer_can_be_had_at_once(store: Store, keys: Keys) -> None:
    publish(store, keys, "aabb")
    first = store.claim(keys, [1, 1, 1], ["one", "two", "three"])
    assert (first.positions, first.shares) == ([1, 3], [1, 1, 0])
    assert first.limited_seconds is None
    store.claim(keys)
    store.ack(keys, first.ids)
    full = store.claim(keys, [1, 1], ["one", "two"], now=NOW + SECOND, max_bytes=1)
    assert (full.positions, full.shares, full.limited_seconds) == ([2], [1, 0], 0)
