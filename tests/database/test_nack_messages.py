"""nack_messages: another attempt after a delay that doubles, and the end of all attempts."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.store import MICROSECOND, NOW, SECOND, SETTLED, STALE, Id, Keys, Store


def delay_after(store: Store, keys: Keys, attempts: int) -> timedelta:
    """Of a message that was nacked on that attempt."""
    store.execute(
        "insert into fastpubsub.leases values (%s, %s, 1, 1, 7, %s, %s, %s, false, '')", *keys, NOW, NOW, attempts
    )
    assert store.nack(keys, [Id(1, 7, None)]) == [SETTLED]
    (retry,) = store.retries(keys)
    assert retry.attempts == attempts
    store.execute("delete from fastpubsub.retries where topic_key = %s", keys.topic)
    return retry.due_at - NOW


def test_the_delay_doubles_from_its_least_to_its_most(store: Store) -> None:
    keys = store.create(backoff_min=3, backoff_max=50, max_attempts=100)
    store.publish(keys.topic, ["1"])
    delays = [delay_after(store, keys, attempts) for attempts in range(1, 8)]
    assert delays == [timedelta(seconds=seconds) for seconds in (3, 6, 12, 24, 48, 50, 50)]


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 600), (1, 1), (1, 86_400), (7, 2**31 - 1), (86_400, 86_400)])
def test_the_delay_overflows_for_no_attempt(store: Store, least: int, most: int) -> None:
    keys = store.create(backoff_min=least, backoff_max=most, max_attempts=2**31 - 1)
    store.publish(keys.topic, ["1"])
    for attempts in (*range(1, 45), 63, 64, 65, 1023, 1024, 1025, 2000, 2**31 - 2):
        assert delay_after(store, keys, attempts) == timedelta(seconds=min(most, least * 2 ** min(attempts - 1, 64)))


def test_a_given_delay_counts_instead(store: Store) -> None:
    keys = store.create(backoff_min=100)
    store.publish(keys.topic, ["1", "2", "3"])
    store.nack(keys, store.claim(keys).ids, [7, None, 0])
    assert {retry.position: retry.due_at for retry in store.retries(keys)} == {
        1: NOW + 7 * SECOND,
        2: NOW + 100 * SECOND,
        3: NOW,
    }


def test_each_delay_goes_with_the_id_that_settles(store: Store) -> None:
    """Not with the one of somebody else's old delivery of the same message."""
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    old = store.claim(keys)
    store.nack(keys, old.ids, [0, 0])
    new = store.claim(keys)
    ids = [old.ids[1], new.ids[1], old.ids[0], new.ids[0]]
    outcomes = store.nack(keys, ids, [1000, 20, 2000, 10])
    assert (outcomes[1], outcomes[3]) == (SETTLED, SETTLED)
    assert {retry.position: retry.due_at for retry in store.retries(keys)} == {
        1: NOW + 10 * SECOND,
        2: NOW + 20 * SECOND,
    }


def test_the_next_attempt_is_due_at_its_time_and_not_before(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    store.nack(keys, store.claim(keys).ids, [5])
    assert store.claim(keys, now=NOW + 5 * SECOND - MICROSECOND).positions == []
    claimed = store.claim(keys, now=NOW + 5 * SECOND)
    assert (claimed.positions, claimed.attempts) == ([1], [2])


def test_after_the_last_attempt_a_message_is_dead(store: Store) -> None:
    keys = store.create(max_attempts=2, backoff_min=0)
    store.publish(keys.topic, ['{"n": 1}'], ['{"k": "v"}'])
    store.nack(keys, store.claim(keys).ids)
    last = store.claim(keys)
    assert last.attempts == [2]
    query = "select outcomes, died from fastpubsub.nack_messages(%s, %s, '{1}', %s::bigint[], null, null, null, %s)"
    assert store.row(query, *keys, [last.token], NOW + SECOND) == ([SETTLED], 1)
    assert store.retries(keys) == []
    (dead,) = store.dead_letters(keys)
    assert dead.position == 1
    assert (dead.created_at, dead.died_at, dead.attempts) == (NOW, NOW + SECOND, 2)
    assert dead.reason == "nacked on delivery attempt 2 of 2"
    assert (dead.payload, dead.attributes) == ('{"n": 1}', '{"k": "v"}')


def test_fewer_attempts_count_for_what_is_held(store: Store) -> None:
    keys = store.create(max_attempts=5, backoff_min=0)
    store.publish(keys.topic, ["1"])
    store.nack(keys, store.claim(keys).ids)
    held = store.claim(keys).ids
    store.update_subscription("subscription", max_delivery_attempts=1)
    store.nack(keys, held)
    assert [dead.attempts for dead in store.dead_letters(keys)] == [2]


@settings(max_examples=30)
@given(least=st.integers(0, 100_000), more=st.integers(0, 10_000_000), attempts=st.integers(1, 2000))
def test_the_formula(store: Store, least: int, more: int, attempts: int) -> None:
    with store.undone():
        keys = store.create(backoff_min=least, backoff_max=least + more, max_attempts=3000)
        store.publish(keys.topic, ["1"])
        expected = min(least + more, least * 2 ** min(attempts - 1, 64))
        assert delay_after(store, keys, attempts) == timedelta(seconds=expected)


def test_a_stale_nack_takes_no_attempt(store: Store) -> None:
    keys = store.create(max_attempts=2)
    store.publish(keys.topic, ["1"])
    claimed = store.claim(keys)
    assert store.nack(keys, [Id(1, 7, None)] * 3) == [STALE] * 3
    assert [lease.attempts for lease in store.leases(keys)] == [1]
    assert store.ack(keys, claimed.ids) == [SETTLED]


def test_a_reason_is_kept_while_it_waits_and_when_it_dies(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.fill(keys.topic, 3)
    claim = store.claim(keys)
    query = "select fastpubsub.nack_messages(%s, %s, %s::bigint[], %s::bigint[], null, null, null, %s, %s::text[])"
    store.value(query, *keys, [1, 2], [claim.token] * 2, NOW, ["the disk is full", None])
    assert [(letter.position, letter.reason) for letter in store.dead_letters(keys)] == [
        (1, "nacked on delivery attempt 1 of 1: the disk is full"),
        (2, "nacked on delivery attempt 1 of 1"),
    ]
    store.update_subscription("subscription", max_delivery_attempts=2)
    store.value(query, *keys, [3], [claim.token], NOW, ["the disk is full"])
    assert [(retry.position, retry.reason) for retry in store.retries(keys)] == [(3, "nacked: the disk is full")]
