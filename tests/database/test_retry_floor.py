"""The floor of the retries strands nobody (invariant 6): nack against claim, and the net below it."""

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.database.conftest import Background, OpenStore
from tests.database.store import EXAMPLES, MICROSECOND, NOW, SECOND, Keys, Store, wait_until_blocked

LATER = NOW + timedelta(days=1)


def stranded(store: Store) -> list[str]:
    return [name for _, _, name in store.rows("select * from fastpubsub.list_stranded_retries()")]


def lift(store: Store, keys: Keys) -> int:
    return int(store.value("select fastpubsub.lift_stranded_retries(%s, %s)", *keys))


def floor(store: Store, keys: Keys) -> tuple[datetime | None, int]:
    cursor = store.cursor(keys)
    return cursor.retry_due_at, cursor.retry_position


def test_the_floor_is_exactly_the_last_retry_taken(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    assert floor(store, keys) == (None, 0)
    store.nack(keys, store.claim(keys).ids, [5, 5, 9])
    assert floor(store, keys) == (None, 0)
    store.claim(keys, 1, now=LATER)
    assert floor(store, keys) == (NOW + 5 * SECOND, 1)
    store.claim(keys, 5, now=LATER)
    assert floor(store, keys) == (NOW + 9 * SECOND, 3)
    store.claim(keys, 5, now=LATER)
    assert floor(store, keys) == (NOW + 9 * SECOND, 3)


def test_the_floor_never_goes_back(store: Store) -> None:
    """Below it lie the rows that were taken, and a claim would walk over them again."""
    keys = store.create()
    store.fill(keys.topic, 3)
    store.nack(keys, store.claim(keys).ids, [5, 6, 7])
    ids = store.claim(keys, 2, now=LATER).ids
    reached = (NOW + 6 * SECOND, 2)
    store.reject(keys, ids)
    store.purge(keys, ids[:1])
    assert floor(store, keys) == reached
    store.seek(keys, "earliest")
    assert floor(store, keys) == reached
    store.reject(keys, store.claim(keys).ids)
    assert floor(store, keys) == reached


def test_what_is_due_before_the_floor_waits_just_above_it(store: Store) -> None:
    """The clock was set back, or a nack with a long delay was claimed before one without."""
    keys = store.create()
    store.fill(keys.topic, 3)
    first, second, third = store.claim(keys).ids
    store.nack(keys, [third], [100])
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == [3]
    store.nack(keys, [first, second], [0, 200])
    assert [(retry.position, retry.due_at) for retry in store.retries(keys)] == [
        (1, NOW + 100 * SECOND + MICROSECOND),
        (2, NOW + 200 * SECOND),
    ]
    assert stranded(store) == []
    assert store.claim(keys, now=LATER).positions == [1, 2]


def test_every_way_back_respects_the_floor(store: Store) -> None:
    keys = store.create(ack_deadline=60, backoff_min=0)
    store.fill(keys.topic, 5)
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[:1], [3600])
    store.claim(keys, now=NOW + timedelta(hours=1))
    store.nack(keys, claimed.ids[1:2])
    store.give_back(keys, [3], claimed.token)
    store.reject(keys, claimed.ids[3:4])
    store.reprocess(keys, [claimed.ids[3]])
    store.release(keys, now=NOW + 60 * SECOND)
    due = NOW + timedelta(hours=1) + MICROSECOND
    assert [(retry.position, retry.due_at) for retry in store.retries(keys)] == [(n, due) for n in (2, 3, 4, 5)]
    assert store.claim(keys, now=LATER).positions == [2, 3, 4, 5]


def test_a_nack_that_commits_late_is_found(open_store: OpenStore, background: Background) -> None:
    """Claims of what is due wait for it: none of them can move the floor past it."""
    nacking, claiming, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 2)
    early, late = watcher.claim(keys).ids
    watcher.nack(keys, [early], [5])
    with nacking.transaction():
        nacking.nack(keys, [late], [1])
        assert watcher.claim(keys, now=NOW + SECOND).positions == []
        waiting = background(claiming.claim, keys, now=NOW + 5 * SECOND)
        wait_until_blocked(watcher, claiming, by=nacking)
    assert waiting.result().positions == [2, 1]
    assert stranded(watcher) == []


def test_nacks_and_claims_at_once_lose_nothing(open_store: OpenStore, background: Background) -> None:
    """By the real clock: everybody claims and gives back until each message was had often enough."""
    stores = [open_store() for _ in range(4)]
    keys = stores[0].create(backoff_min=0, max_attempts=1000)
    stores[0].fill(keys.topic, 40, now=None)

    def work(store: Store) -> None:
        for _ in range(40):
            store.nack(keys, store.claim(keys, 5, now=None).ids, now=None)

    for future in [background(work, store) for store in stores]:
        future.result()
    assert stranded(stores[0]) == []
    assert sorted(stores[0].claim(keys, now=datetime.now(NOW.tzinfo) + timedelta(hours=1)).positions) == list(
        range(1, 41)
    )


def test_the_net_lifts_what_lies_below(store: Store) -> None:
    keys = store.create()
    store.create_subscription("other")
    store.fill(keys.topic, 4)
    ids = store.claim(keys).ids
    store.nack(keys, ids[:1], [10])
    store.claim(keys, now=NOW + 10 * SECOND)
    store.nack(keys, ids[3:], [500])
    at_the_floor, below = (NOW + 10 * SECOND, 1), (NOW, 3)
    for due_at, position in (at_the_floor, below):
        store.execute(
            "delete from fastpubsub.leases where topic_key = %s and subscription_key = %s and position = %s",
            *keys,
            position,
        )
        store.execute("insert into fastpubsub.retries values (%s, %s, %s, %s, 1, 'nacked')", *keys, due_at, position)
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == []
    assert stranded(store) == ["subscription"]
    assert lift(store, keys) == 2
    assert stranded(store) == []
    assert lift(store, keys) == 0
    assert store.claim(keys, now=NOW + 100 * SECOND).positions == [1, 3]
    assert [retry.position for retry in store.retries(keys)] == [4]


def test_a_trim_does_not_take_what_the_net_will_lift(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    ids = store.claim(keys).ids
    store.nack(keys, ids[2:], [10])
    store.claim(keys, now=NOW + 10 * SECOND)
    store.ack(keys, ids)
    store.ack(keys, [one.bare for one in ids])
    store.execute("insert into fastpubsub.retries values (%s, %s, %s, 1, 1, 'nacked')", *keys, NOW)
    lift(store, keys)
    assert store.trim(keys.topic) == 0
    assert store.claim(keys, now=LATER).positions == [1]


STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(1, 4)), min_size=1, max_size=40)


@settings(max_examples=EXAMPLES)
@given(steps=STEPS)
def test_whatever_the_clock_does_everything_comes_again(store: Store, steps: list[tuple[int, int, int]]) -> None:
    """Each step claims at a time of its own and gives some of it back with a delay."""
    with store.undone():
        keys = store.create(max_attempts=1000)
        store.fill(keys.topic, 6)
        held: list[int] = []
        for moment, delay, count in steps:
            now = NOW + moment * SECOND
            claimed = store.claim(keys, count, now=now)
            store.nack(keys, claimed.ids[: count // 2 + 1], [delay] * len(claimed.ids[: count // 2 + 1]), now=now)
            held += claimed.positions[count // 2 + 1 :]
            assert stranded(store) == []
            assert lift(store, keys) == 0
        rest = store.claim(keys, now=LATER).positions
        assert sorted(held + rest) == [1, 2, 3, 4, 5, 6]
