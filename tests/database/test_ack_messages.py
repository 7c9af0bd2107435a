"""ack_messages_2 and what all settling shares: only the current delivery settles (invariant 3)."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import (
    EXAMPLES,
    GONE,
    NOW,
    SECOND,
    SETTLED,
    STALE,
    Id,
    Keys,
    Released,
    Store,
    wait_until_blocked,
)

DEADLINE = 60
EXPIRED = NOW + timedelta(seconds=DEADLINE)

Settle = Callable[[Store, Keys, list[Id]], list[int]]

SETTLES: dict[str, Settle] = {
    "ack": lambda store, keys, ids: store.ack(keys, ids),
    "nack": lambda store, keys, ids: store.nack(keys, ids),
    "reject": lambda store, keys, ids: store.reject(keys, ids),
    "extend": lambda store, keys, ids: store.extend(keys, ids, 5),
}
settling = pytest.mark.parametrize("settle", SETTLES.values(), ids=SETTLES)


@pytest.fixture
def keys(store: Store) -> Keys:
    keys = store.create(ack_deadline=DEADLINE, backoff_min=0, max_attempts=9)
    store.publish(keys.topic, ["1", "2", "3"])
    return keys


def test_acked_messages_do_not_come_again(store: Store, keys: Keys) -> None:
    claimed = store.claim(keys)
    assert store.ack(keys, claimed.ids) == [SETTLED] * 3
    assert store.leases(keys) == []
    assert store.release(keys, now=NOW + timedelta(days=1)) == Released(0, 0)
    assert store.claim(keys, now=NOW + timedelta(days=1)).positions == []
    assert store.metrics(keys).acked == 3


def test_a_repeated_ack_is_gone_and_never_stale(store: Store, keys: Keys) -> None:
    ids = store.claim(keys).ids
    assert store.ack(keys, ids) == [SETTLED] * 3
    assert store.ack(keys, ids) == [GONE] * 3
    assert store.ack(keys, [one.bare for one in ids]) == [GONE] * 3


def test_twice_in_one_call_settles_once_and_says_so_twice(store: Store, keys: Keys) -> None:
    first, second, third = store.claim(keys).ids
    assert store.ack(keys, [second, first, second, second.bare]) == [SETTLED] * 4
    assert [lease.position for lease in store.leases(keys)] == [third.position]
    assert store.metrics(keys).acked == 2


@settling
def test_an_old_token_twice_in_one_call_is_stale_twice(store: Store, keys: Keys, settle: Settle) -> None:
    store.claim(keys)
    assert settle(store, keys, [Id(1, 7, None)] * 3) == [STALE] * 3


def test_what_was_never_handed_out_is_gone(store: Store, keys: Keys) -> None:
    store.claim(keys, 1)
    assert store.ack(keys, [Id(2, 7, NOW), Id(3, None, NOW), Id(99, 7, None), Id(0, 7, None), Id(-1, None, NOW)]) == (
        [GONE] * 5
    )
    assert store.ack(keys, []) == []


def test_outcomes_are_in_the_order_of_the_ids(store: Store, keys: Keys) -> None:
    first, second, third = store.claim(keys).ids
    store.ack(keys, [second])
    mixed = [third._replace(token=7), second, first, Id(99, 7, None)]
    assert store.ack(keys, mixed) == [STALE, GONE, SETTLED, GONE]
    assert [lease.position for lease in store.leases(keys)] == [3]


@settling
def test_an_old_token_after_expiry_and_another_claim_changes_nothing(store: Store, keys: Keys, settle: Settle) -> None:
    old = store.claim(keys).ids
    store.release(keys, now=EXPIRED)
    assert settle(store, keys, old) == [GONE] * 3
    new = store.claim(keys, now=EXPIRED)
    held = store.leases(keys)
    assert settle(store, keys, old) == [STALE] * 3
    assert store.leases(keys) == held
    assert settle(store, keys, new.ids) == [SETTLED] * 3


@settling
def test_an_old_token_after_a_nack_changes_nothing(store: Store, keys: Keys, settle: Settle) -> None:
    old = store.claim(keys).ids
    store.nack(keys, old)
    assert settle(store, keys, old) == [GONE] * 3
    store.claim(keys)
    held = store.leases(keys)
    assert settle(store, keys, old) == [STALE] * 3
    assert store.leases(keys) == held


@settling
def test_an_old_token_after_a_seek_changes_nothing(store: Store, keys: Keys, settle: Settle) -> None:
    """The same message on its first attempt again: only the token tells the deliveries apart."""
    old = store.claim(keys)
    store.seek(keys, "earliest")
    assert settle(store, keys, old.ids) == [GONE] * 3
    new = store.claim(keys)
    assert (new.positions, new.attempts) == (old.positions, old.attempts)
    held = store.leases(keys)
    assert settle(store, keys, old.ids) == [STALE] * 3
    assert store.leases(keys) == held


@settling
def test_an_old_token_in_a_call_with_the_new_one_changes_nothing(store: Store, keys: Keys, settle: Settle) -> None:
    """Many clients share a call: what one of them may do, another one's id must not borrow."""
    old = store.claim(keys)
    store.nack(keys, old.ids)
    new = store.claim(keys)
    swapped = [Id(1, new.token, None), Id(2, old.token, None), Id(3, new.token, None), Id(3, old.token, None)]
    outcomes = settle(store, keys, swapped)
    assert (outcomes[0], outcomes[1], outcomes[2]) == (SETTLED, STALE, SETTLED)
    assert outcomes[3] in (GONE, STALE)
    assert 2 in [lease.position for lease in store.leases(keys)]


@settling
def test_an_expired_lease_that_nobody_took_over_still_settles(store: Store, keys: Keys, settle: Settle) -> None:
    ids = store.claim(keys, now=NOW - timedelta(days=1)).ids
    assert settle(store, keys, ids) == [SETTLED] * 3


@settling
def test_a_bare_id_settles_whoever_holds_the_message(store: Store, keys: Keys, settle: Settle) -> None:
    store.nack(keys, store.claim(keys).ids)
    ids = store.claim(keys).ids
    assert settle(store, keys, [one.bare for one in ids]) == [SETTLED] * 3


@settling
def test_a_bare_id_needs_the_right_time_of_creation(store: Store, keys: Keys, settle: Settle) -> None:
    """The id of a message that an earlier life of the database had at this position."""
    store.claim(keys)
    held = store.leases(keys)
    for wrong in (NOW - timedelta(milliseconds=1), NOW + SECOND):
        assert settle(store, keys, [Id(1, None, wrong)]) == [STALE]
    assert store.leases(keys) == held


@settling
def test_ids_count_only_for_their_own_subscription_and_topic(store: Store, keys: Keys, settle: Settle) -> None:
    ids = store.claim(keys).ids
    other = store.create_subscription("other")
    store.create_topic("other")
    elsewhere = store.create_subscription("elsewhere", "other")
    for place in (other, elsewhere):
        assert settle(store, place, ids) == [GONE] * 3
        assert settle(store, place, [one.bare for one in ids]) == [GONE] * 3
    assert len(store.leases(keys)) == 3


@settling
def test_a_missing_subscription(store: Store, keys: Keys, settle: Settle) -> None:
    ids = store.claim(keys).ids
    for missing in (Keys(keys.topic, keys.subscription + 1000), Keys(keys.topic + 1000, keys.subscription)):
        with store.refused("FP404"):
            settle(store, missing, ids)


@settling
def test_ids_that_are_far_apart(store: Store, keys: Keys, settle: Settle) -> None:
    store.fill(keys.topic, 2000)
    ids = store.claim(keys, 2003).ids
    chosen = [ids[index] for index in (1500, 3, 4, 2002, 0, 700, 765, 764)]
    assert settle(store, keys, chosen) == [SETTLED] * 8
    assert settle(store, keys, [chosen[0]._replace(token=7), *chosen[1:]])[0] in (GONE, STALE)


def test_a_thousand_in_any_order(store: Store, keys: Keys) -> None:
    store.fill(keys.topic, 997)
    ids = store.claim(keys, 1000).ids
    assert store.ack(keys, ids[::-2] + ids[::-2]) == [SETTLED] * 1000
    assert [lease.position for lease in store.leases(keys)] == list(range(1, 1000, 2))


def test_two_at_once_settle_each_message_once(open_store: OpenStore, background: Background) -> None:
    stores = [open_store(), open_store()]
    keys = stores[0].create()
    stores[0].fill(keys.topic, EXAMPLES * 20)
    for _ in range(EXAMPLES):
        ids = stores[0].claim(keys, 20).ids
        futures = [
            background(stores[0].ack, keys, ids),
            background(stores[1].ack, keys, ids[::-1]),
        ]
        first, second = (future.result() for future in futures)
        assert [one + two for one, two in zip(first, second[::-1], strict=True)] == [SETTLED] * 20
    assert stores[0].metrics(keys).acked == EXAMPLES * 20


def test_an_ack_waits_for_a_nack_of_the_same_message(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.publish(keys.topic, ["1"])
    ids = watcher.claim(keys).ids
    with first.transaction():
        assert first.nack(keys, ids, [0]) == [SETTLED]
        waiting = background(second.ack, keys, ids)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result() == [GONE]
    assert [retry.position for retry in watcher.retries(keys)] == [1]
