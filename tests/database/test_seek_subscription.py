"""seek_subscription, and where a new subscription starts: the same targets."""

from datetime import datetime, timedelta

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import GONE, NOW, SECOND, STALE, Keys, Settings, Store, wait_until_blocked

TIMES = [NOW + second * SECOND for second in (0, 0, 10, 20, 20, 20, 30)]
FIRST_KEPT = 4


@pytest.fixture(params=[False, True], ids=["whole", "trimmed"])
def keys(store: Store, request: pytest.FixtureRequest) -> Keys:
    """Seven messages at TIMES, all settled; in a trimmed topic those before FIRST_KEPT are gone."""
    keys = store.create()
    for number, time in enumerate(TIMES, 1):
        store.publish(keys.topic, [str(number)], now=time)
    store.ack(keys, store.claim(keys).ids)
    if request.param:
        assert store.trim(keys.topic, limit=FIRST_KEPT - 1, now=NOW + timedelta(days=1)) == FIRST_KEPT - 1
    return keys


TARGETS: list[tuple[str, datetime | None, int | None, int]] = [
    ("earliest", None, None, 1),
    ("latest", None, None, 8),
    ("time", NOW - timedelta(days=9000), None, 1),
    ("time", TIMES[0], None, 1),
    ("time", TIMES[0] + timedelta(microseconds=1), None, 3),
    ("time", TIMES[2], None, 3),
    ("time", TIMES[3] - timedelta(microseconds=1), None, 4),
    ("time", TIMES[3], None, 4),
    ("time", TIMES[5] + SECOND, None, 7),
    ("time", TIMES[6], None, 7),
    ("time", TIMES[6] + SECOND, None, 8),
    ("message", None, 5, 5),
    ("message", None, 1, 1),
    ("message", None, 7, 7),
    ("message", None, 8, 8),
    ("message", None, 9, 8),
    ("message", None, 2**42 - 1, 8),
    ("message", None, 0, 1),
    ("message", None, -5, 1),
]


@pytest.mark.parametrize(("to", "time", "position", "following"), TARGETS)
def test_what_comes_next(
    store: Store, keys: Keys, to: str, time: datetime | None, position: int | None, following: int
) -> None:
    first = store.positions(keys.topic)[0]
    store.seek(keys, to, time=time, position=position)
    assert store.claim(keys).positions == list(range(max(following, first), 8))


@pytest.mark.parametrize(("to", "time", "following"), [row[:2] + row[3:] for row in TARGETS if row[0] != "message"])
def test_where_a_new_subscription_starts(
    store: Store, keys: Keys, to: str, time: datetime | None, following: int
) -> None:
    first = store.positions(keys.topic)[0]
    new = store.create_subscription("new", settings=Settings(start=to, start_time=time))
    assert store.claim(new).positions == list(range(max(following, first), 8))


@pytest.mark.parametrize("to", ["earliest", "latest", "time", "message"])
def test_in_an_empty_topic(store: Store, to: str) -> None:
    keys = store.create()
    store.seek(keys, to, time=NOW, position=7)
    assert store.cursor(keys).position == 0
    store.publish(keys.topic, ["1"])
    assert store.claim(keys).positions == [1]


def test_leases_and_retries_end_and_old_tokens_with_them(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 6)
    ids = store.claim(keys, 4).ids
    store.nack(keys, ids[:2], [0, 500])
    store.seek(keys, "message", position=3)
    assert store.leases(keys) == []
    assert store.retries(keys) == []
    assert store.ack(keys, ids) == [GONE] * 4
    assert store.claim(keys, now=NOW + timedelta(days=1)).positions == [3, 4, 5, 6]
    assert store.ack(keys, ids[2:]) == [STALE] * 2


@pytest.mark.parametrize("to", ["earliest", "latest"])
def test_what_was_acked_stays_acked(store: Store, to: str) -> None:
    keys = store.create()
    store.fill(keys.topic, 10)
    ids = store.claim(keys, 7).ids
    store.ack(keys, ids[:3])
    store.nack(keys, ids[3:5])
    store.reject(keys, ids[5:6])
    store.seek(keys, to)
    metrics = store.metrics(keys)
    assert (metrics.waiting, metrics.leased, metrics.dead, metrics.acked) == (0, 0, 1, 3)
    assert metrics.ahead == (10 if to == "earliest" else 0)


def test_retries_after_a_seek_are_still_found(store: Store) -> None:
    """The floor of the retries stays where it is."""
    keys = store.create()
    store.fill(keys.topic, 2)
    store.nack(keys, store.claim(keys, 1).ids, [100])
    store.claim(keys, now=NOW + 100 * SECOND)
    store.seek(keys, "earliest")
    store.nack(keys, store.claim(keys).ids, [0, 0])
    assert store.claim(keys, now=NOW + 101 * SECOND).positions == [1, 2]


def test_a_claim_waits_for_a_seek(open_store: OpenStore, background: Background) -> None:
    seeking, claiming, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 5)
    old = watcher.claim(keys, 3).ids
    with seeking.transaction():
        seeking.seek(keys, "message", position=2)
        waiting = background(claiming.claim, keys, 2)
        wait_until_blocked(watcher, claiming, by=seeking)
    assert waiting.result().positions == [2, 3]
    assert watcher.ack(keys, old) == [GONE, STALE, STALE]


def test_a_seek_waits_for_a_trim_and_stays_within_what_is_left(open_store: OpenStore, background: Background) -> None:
    trimming, seeking, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 5)
    watcher.ack(keys, watcher.claim(keys).ids)
    with trimming.transaction():
        assert trimming.trim(keys.topic, limit=3) == 3
        waiting = background(seeking.seek, keys, "earliest")
        wait_until_blocked(watcher, seeking, by=trimming)
    waiting.result()
    assert watcher.claim(keys).positions == [4, 5]


def test_a_trim_waits_for_a_seek_and_leaves_what_it_wants(open_store: OpenStore, background: Background) -> None:
    seeking, trimming, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.fill(keys.topic, 5)
    watcher.ack(keys, watcher.claim(keys).ids)
    with seeking.transaction():
        seeking.seek(keys, "message", position=3)
        waiting = background(trimming.trim, keys.topic)
        wait_until_blocked(watcher, trimming, by=seeking)
    assert waiting.result() == 2
    assert watcher.claim(keys).positions == [3, 4, 5]


@pytest.mark.parametrize("start", ["earliest", "time"])
def test_a_subscription_from_the_beginning_waits_for_a_trim(
    open_store: OpenStore, background: Background, start: str
) -> None:
    """A trim does not know the new cursor yet, and must not take what it is about to stand before."""
    trimming, creating, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    watcher.fill(topic, 5)
    settings = Settings(start=start, start_time=NOW)
    with trimming.transaction():
        assert trimming.trim(topic, limit=3) == 3
        waiting = background(creating.create_subscription, settings=settings)
        wait_until_blocked(watcher, creating, by=trimming)
    assert watcher.claim(waiting.result()).positions == [4, 5]


def test_a_trim_waits_for_a_subscription_from_the_beginning(open_store: OpenStore, background: Background) -> None:
    creating, trimming, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    watcher.fill(topic, 5)
    with creating.transaction():
        keys = creating.create_subscription(settings=Settings(start="earliest"))
        assert trimming.trim(topic) == 0
        waiting = background(trimming.trim, topic, wait=True)
        wait_until_blocked(watcher, trimming, by=creating)
    assert waiting.result() == 0
    assert watcher.claim(keys).positions == [1, 2, 3, 4, 5]
