"""Settling and claiming in one transaction; what each half does has files of its own."""

from datetime import timedelta

import psycopg
import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import GONE, NOW, SECOND, SETTLED, STALE, Id, Keys, Settles, Store, wait_until_blocked

LATER = NOW + timedelta(days=1)


@pytest.fixture
def keys(store: Store) -> Keys:
    keys = store.create(backoff_min=0, backoff_max=0)
    store.fill(keys.topic, 20)
    return keys


def test_all_kinds_at_once(store: Store, keys: Keys) -> None:
    ids = store.claim(keys, 5).ids
    settles = Settles(
        acks=(ids[:1], None),
        nacks=(ids[1:2], [7]),
        returns=(ids[2:3], None),
        rejects=(ids[3:4], ["no"]),
        extensions=(ids[4:], [600]),
    )
    outcomes, claimed = store.settle_and_claim(keys, settles, [3], now=NOW + SECOND)
    assert outcomes == [[SETTLED]] * 5
    assert (claimed.positions, claimed.attempts) == ([3, 6, 7], [1, 1, 1]), "what is due at once is claimed again"
    assert [(lease.position, lease.expires_at) for lease in store.leases(keys)] == [
        (3, NOW + 61 * SECOND),
        (5, NOW + 601 * SECOND),
        (6, NOW + 61 * SECOND),
        (7, NOW + 61 * SECOND),
    ]
    assert [(one.position, one.due_at) for one in store.retries(keys)] == [(2, NOW + 8 * SECOND)]
    assert [(one.position, one.reason) for one in store.dead_letters(keys)] == [(4, "no")]


def test_of_an_id_in_several_parts_the_first_counts(store: Store, keys: Keys) -> None:
    first, *_ = ids = store.claim(keys, 2).ids
    twice = [first, first]
    outcomes, _ = store.settle_and_claim(
        keys,
        Settles((twice, None), (ids, [0, 0]), ([first.bare], None), (ids, ["no", "no"]), (ids, [9, 9])),
        [],
    )
    assert outcomes == [[SETTLED] * 2, [GONE, SETTLED], [GONE], [GONE] * 2, [GONE] * 2]
    assert store.dead_letters(keys) == []


def test_the_deadline_of_what_is_settled_later_in_the_call_does_not_matter(store: Store, keys: Keys) -> None:
    """An id by which the next claim holds the message is stale, in the same call and in the next."""
    (one,) = store.claim(keys, 1).ids
    store.release(keys, now=LATER)
    outcomes, claimed = store.settle_and_claim(keys, Settles(acks=([one], None)), [1], now=LATER)
    assert (outcomes[0], claimed.positions) == ([GONE], [1])
    outcomes, claimed = store.settle_and_claim(keys, Settles(acks=([one], None)), [1], now=LATER)
    assert (outcomes[0], claimed.positions) == ([STALE], [2])


def test_nothing_is_claimed_without_a_limit(store: Store, keys: Keys) -> None:
    ids = store.claim(keys, 1).ids
    before = store.cursor(keys)
    outcomes, claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)), [], [])
    assert (outcomes[0], claimed.positions, claimed.token) == ([SETTLED], [], None)
    assert store.cursor(keys) == before


def test_an_empty_subscription_gets_no_row_of_claims(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 1)
    ids = store.claim(keys, 1).ids
    before = store.cursor(keys)
    outcomes, claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)))
    assert (outcomes[0], claimed.positions, claimed.scanned, claimed.last) == ([SETTLED], [], 1, 1)
    assert store.cursor(keys) == before


def test_several_consumers(store: Store, keys: Keys) -> None:
    ids = store.claim(keys, [2, 2], ["a", "b"]).ids
    _, claimed = store.settle_and_claim(keys, Settles(acks=([ids[2], ids[0]], None)), [1, 2], ["a", "b"])
    assert claimed.positions == [5, 6, 7]
    assert [(lease.position, lease.consumer_id) for lease in store.leases(keys)] == [
        (2, "a"),
        (4, "b"),
        (5, "a"),
        (6, "b"),
        (7, "b"),
    ]


def test_neither_happens_when_one_is_refused(open_store: OpenStore) -> None:
    """A reason that is too long for the row: the acks before it are undone, and nothing is claimed."""
    store = open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, 2).ids
    before = store.leases(keys), store.cursor(keys)
    with store.refused("22003"):
        far = timedelta(days=365 * 400_000)
        store.settle_and_claim(
            keys, Settles(acks=(ids[:1], None), extensions=(ids[1:], [int(far.total_seconds())])), [2]
        )
    assert (store.leases(keys), store.cursor(keys)) == before


def test_neither_happens_without_the_subscription(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, 2).ids
    store.delete_subscription()
    for settles, limits in ((Settles(acks=(ids, None)), [1]), (Settles(), [1]), (Settles(), [])):
        with store.refused("FP404"):
            store.settle_and_claim(keys, settles, limits)


def test_a_seek_in_between_ends_what_is_out(open_store: OpenStore, background: Background) -> None:
    seeking, store, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, 2).ids
    with seeking.transaction():
        seeking.seek(keys, "earliest")
        call = background(store.settle_and_claim, keys, Settles(acks=(ids, None)), [2])
        wait_until_blocked(watcher, store, by=seeking)
    outcomes, claimed = call.result()
    assert (outcomes[0], claimed.positions) == ([GONE, GONE], [1, 2])
    assert store.metrics(keys).acked == 0


def test_a_deletion_in_between(open_store: OpenStore, background: Background) -> None:
    deleting, store, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, 2).ids
    with deleting.transaction():
        deleting.delete_subscription()
        call = background(store.settle_and_claim, keys, Settles(acks=(ids, None)), [2])
        wait_until_blocked(watcher, store, by=deleting)
    with pytest.raises(psycopg.Error, match="does not exist") as raised:
        call.result()
    assert raised.value.sqlstate == "FP404"


def test_an_ack_that_overtakes_makes_it_gone(open_store: OpenStore, background: Background) -> None:
    """An ack of a whole lease holds no cursor: the call waits for its row, not the other way round."""
    acking, store, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, 2).ids
    with acking.transaction():
        assert acking.ack(keys, ids) == [SETTLED] * 2
        call = background(store.settle_and_claim, keys, Settles(acks=(ids, None)), [2])
        wait_until_blocked(watcher, store, by=acking)
    outcomes, claimed = call.result()
    assert (outcomes[0], claimed.positions) == ([GONE] * 2, [3, 4])
    assert store.metrics(keys).acked == 2


def test_a_killed_call_leaves_nothing_behind(open_store: OpenStore, background: Background) -> None:
    """Its session ends while it waits for the commit of an ack: neither half is done; the deadline repairs the rest."""
    acking, store, watcher = open_store(), open_store(), open_store()
    keys = store.create()
    store.fill(keys.topic, 5)
    ids = store.claim(keys, [1, 1], ["a", "b"]).ids
    pid = store.pid
    with acking.transaction():
        assert acking.ack(keys, ids[1:]) == [SETTLED]
        call = background(store.settle_and_claim, keys, Settles(acks=(ids, None)), [2])
        wait_until_blocked(watcher, store, by=acking)
        watcher.value("select pg_terminate_backend(%s, 30000)", pid)
        with pytest.raises(psycopg.OperationalError):
            call.result()
    assert [lease.position for lease in watcher.leases(keys)] == [1]
    assert watcher.cursor(keys).position == 2
    assert watcher.release(keys, now=LATER).released == 1
    outcomes, claimed = watcher.settle_and_claim(keys, Settles(acks=(ids, None)), [9], now=LATER + timedelta(days=1))
    assert (outcomes[0], claimed.positions) == ([GONE, GONE], [1, 3, 4, 5])


def test_two_at_once_hand_out_nothing_twice(open_store: OpenStore, background: Background) -> None:
    stores = [open_store() for _ in range(3)]
    keys = stores[0].create()
    stores[0].fill(keys.topic, 300)

    def work(store: Store) -> list[int]:
        ids: list[Id] = []
        seen: list[int] = []
        for _ in range(50):
            outcomes, claimed = store.settle_and_claim(keys, Settles(acks=(ids, None)), [2])
            assert outcomes[0] == [SETTLED] * len(ids)
            ids = claimed.ids
            seen += claimed.positions
        return seen

    futures = [background(work, store) for store in stores]
    seen = sorted(position for future in futures for position in future.result())
    assert seen == list(range(1, 301))
    assert stores[0].value("select deadlocks from pg_stat_database where datname = current_database()") == 0


def test_leases_are_locked_by_position_whatever_their_kinds(open_store: OpenStore, background: Background) -> None:
    """An ack of the same leases holds no cursor; it would wait for one of them while it holds the other: a deadlock."""
    holding, store, acking, watcher = (open_store() for _ in range(4))
    keys = store.create()
    store.fill(keys.topic, 5)
    first, second = store.claim(keys, [1, 1], ["a", "b"]).ids
    with holding.transaction():
        holding.row("select from fastpubsub.leases where position = 2 for update")
        call = background(store.settle_and_claim, keys, Settles(acks=([second], None), nacks=([first], [9])), [1])
        wait_until_blocked(watcher, store, by=holding)
        ack = background(acking.ack, keys, [first, second])
        wait_until_blocked(watcher, acking, by=store)
    outcomes, claimed = call.result()
    assert (outcomes[:2], claimed.positions) == ([[SETTLED], [SETTLED]], [3])
    assert ack.result() == [GONE, GONE]
    assert watcher.value("select deadlocks from pg_stat_database where datname = current_database()") == 0
