"""How many messages a subscription may have after its cursor, and what happens to more."""

import psycopg
import pytest

from tests.database import delayed
from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Keys, Settings, Store, wait_until_blocked

MATCHING, OTHER = '{"a": 1}', '{"a": 2}'


def cursor(store: Store, keys: Keys) -> int:
    position: int = store.value("select fastpubsub.cursor_position(%s, %s)", *keys)
    return position


def full(store: Store) -> list[str]:
    return [name for (name,) in store.rows("select subscription_id from fastpubsub.list_full_subscriptions()")]


def once(store: Store, topic: int, *keys: str) -> list[int | None]:
    """Publishes a message for each idempotency key."""
    count = len(keys)
    row = store.row(
        "select * from fastpubsub.publish_messages_once("
        "%s, %s::json[], null, %s::integer[], %s, %s, %s::bytea[], 60, 0, %s)",
        *(topic, ["{}"] * count, [1] * count, ["client"] * count, list(keys), [b"hash"] * count, NOW),
    )
    return list(row[0])


def test_what_does_not_fit_is_refused_as_a_whole(store: Store) -> None:
    keys = store.create(max_backlog=3)
    store.fill(keys.topic, 2)
    with store.refused("FP430"):
        store.fill(keys.topic, 2)
    with store.refused("FP422"):
        store.fill(keys.topic, 4)
    assert store.fill(keys.topic, 1).first_position == 3
    for count in (1, 4):
        with store.refused("FP429"):
            store.fill(keys.topic, count)
    assert store.positions(keys.topic) == [1, 2, 3]
    store.claim(keys, 2)
    store.fill(keys.topic, 2)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)


def test_the_one_with_the_least_room_decides(store: Store) -> None:
    keys = store.create(max_backlog=5)
    store.create_subscription("tight", settings=Settings(max_backlog=2))
    store.create_subscription("lossy", settings=Settings(max_backlog=1, on_full="drop_oldest"))
    store.create_subscription("free")
    store.fill(keys.topic, 2)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
    store.update_subscription("tight", max_backlog=3)
    store.fill(keys.topic, 1)
    store.update_subscription("tight", on_full="dead_letter")
    store.fill(keys.topic, 2)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
    store.update_subscription("subscription", max_backlog=0)
    store.fill(keys.topic, 10)


def test_a_limit_that_comes_later_counts_what_is_there(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 5)
    store.update_subscription("subscription", max_backlog=5)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
    store.seek(keys, "latest")
    store.fill(keys.topic, 5)
    store.seek(keys, "earliest")
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
    store.delete_subscription()
    store.fill(keys.topic, 1)


def test_a_fork_has_the_limit_too(store: Store) -> None:
    keys = store.create()
    store.fork_subscription("fork", max_backlog=2)
    store.fork_subscription("fork-of-fork", "fork", max_backlog=0)
    store.fill(keys.topic, 2)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
    store.delete_subscription("fork")
    store.fill(keys.topic, 1)


def test_a_repetition_gets_its_answer_when_there_is_no_room(store: Store) -> None:
    keys = store.create(max_backlog=2)
    assert once(store, keys.topic, "a", "b") == [1, 2]
    assert once(store, keys.topic, "a", "b") == [1, 2]
    with store.refused("FP430"):
        once(store, keys.topic, "a", "c")
    with store.refused("FP429"):
        once(store, keys.topic, "c", "d")
    store.claim(keys, 1)
    assert once(store, keys.topic, "a", "c") == [1, 3]


def test_what_was_accepted_earlier_comes(store: Store) -> None:
    keys = store.create(max_backlog=2)
    later = delayed.Request(["{}"] * 3, [NOW + SECOND] * 3)
    delayed.publish(store, keys.topic, later, now=NOW)
    store.fill(keys.topic, 2)
    with store.refused("FP430"):
        delayed.publish(store, keys.topic, delayed.Request(["{}"] * 2, [None, NOW + SECOND]), now=NOW)
    with store.refused("FP429"):
        delayed.publish(store, keys.topic, delayed.Request(["{}"], [None]), now=NOW)
    delayed.publish(store, keys.topic, later, now=NOW)
    assert delayed.publish_due(store, keys.topic, now=NOW + SECOND).published == 6
    store.publish(keys.topic, ["{}"], schema_version=None)
    assert store.positions(keys.topic) == list(range(1, 10))


def test_a_full_topic_is_left_out_of_a_call_for_several(store: Store) -> None:
    keys = store.create(max_backlog=2)
    other = store.create_topic("other")
    query = """
        select first_positions from fastpubsub.publish_to_topics(
            %s, array[0, 0]::bigint[], array[0, 2], array[1, 1, 2], array_fill('{}'::json, array[3])
        )
    """
    topics = [keys.topic, other]
    assert store.value(query, topics) == [1, 1]
    assert store.value(query, topics) == [None, 2]
    store.claim(keys, 1)
    assert store.value(query, topics) == [None, 3]
    store.claim(keys, 1)
    assert store.value(query, topics) == [3, 4]


def test_a_publish_waits_for_no_claim_and_none_is_too_many(open_store: OpenStore, background: Background) -> None:
    first, second, holder = open_store(), open_store(), open_store()
    keys = first.create(max_backlog=3)
    with holder.transaction(), first.transaction():
        holder.execute("select fastpubsub.lock_subscription(%s, %s)", *keys)
        first.fill(keys.topic, 2)
        with first.refused("FP430"):
            first.fill(keys.topic, 2)
        waiting = background(second.publish, keys.topic, ["{}", "{}"])
        wait_until_blocked(holder, second, by=first)
    with pytest.raises(psycopg.Error, match='"subscription" is full: it has room for 1 of its max_backlog of 3'):
        waiting.result()
    assert first.positions(keys.topic) == [1, 2]


def test_the_oldest_are_dropped(store: Store) -> None:
    keys = store.create(max_backlog=2, on_full="drop_oldest", backoff_min=0)
    store.fill(keys.topic, 4)
    held = store.claim(keys, 2)
    store.nack(keys, held.ids[:1], now=NOW)
    assert full(store) == []
    assert store.drop_backlog(keys) == (0, 0, False)
    store.fill(keys.topic, 6)
    assert full(store) == ["subscription"]
    assert store.drop_backlog(keys) == (6, 0, False)
    assert full(store) == []
    metrics = store.metrics(keys)
    counts = (metrics.ahead, metrics.waiting, metrics.leased, metrics.dead, metrics.acked, metrics.dropped)
    assert counts == (2, 1, 1, 0, 0, 6)
    assert store.claim(keys, now=NOW + SECOND).positions == [1, 9, 10]
    assert [store.explain(keys, position).may_be_dropped for position in (2, 5, 9)] == [None, True, None]


def test_the_oldest_become_dead_letters(store: Store) -> None:
    keys = store.create(max_backlog=1, on_full="dead_letter")
    store.fill(keys.topic, 6)
    assert store.drop_backlog(keys, 3) == (0, 3, True)
    assert store.drop_backlog(keys, 3) == (0, 2, False)
    letters = store.dead_letters(keys)
    assert [(one.position, one.attempts, one.reason) for one in letters] == [
        (n, 0, "backlog full") for n in range(1, 6)
    ]
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.dead, metrics.acked, metrics.dropped) == (1, 5, 0, 0)
    assert store.claim(keys).positions == [6]


@pytest.mark.parametrize("on_full", ["drop_oldest", "dead_letter"])
def test_what_the_filter_keeps_out_is_no_loss(store: Store, on_full: str) -> None:
    keys = store.create(max_backlog=2, on_full=on_full, filter='{"a": [1]}')
    store.publish(keys.topic, [MATCHING, OTHER, OTHER, MATCHING, OTHER, MATCHING, OTHER])
    gone = [store.drop_backlog(keys, 1) for _ in range(3)]
    assert [(dropped + died, more) for dropped, died, more in gone] == [(1, True), (1, True), (0, False)]
    assert cursor(store, keys) == 5
    metrics = store.metrics(keys)
    assert (metrics.ahead, metrics.dead + metrics.dropped, metrics.filtered, metrics.acked) == (1, 2, 3, 0)


def test_what_is_dropped_is_trimmed(store: Store) -> None:
    keys = store.create(max_backlog=1, on_full="drop_oldest")
    store.fill(keys.topic, 5)
    assert store.trim(keys.topic, 0, now=NOW + SECOND) == 0
    store.drop_backlog(keys)
    assert store.trim(keys.topic, 0, now=NOW + SECOND) == 4


def test_a_limit_in_flight_still_counts_what_is_leased(store: Store) -> None:
    keys = store.create(max_backlog=1, on_full="drop_oldest", max_in_flight=2)
    store.fill(keys.topic, 1)
    store.claim(keys, 1)
    store.fill(keys.topic, 5)
    assert store.drop_backlog(keys) == (4, 0, False)
    store.fill(keys.topic, 1)
    assert store.claim(keys).positions == [6]
    assert store.claim(keys).positions == []


@pytest.mark.parametrize("on_full", ["drop_oldest", "dead_letter"])
def test_an_ordered_one_only_rejects(store: Store, on_full: str) -> None:
    store.create_topic()
    with store.refused("FP422"):
        store.create_subscription(settings=Settings(ordered=True, max_backlog=1, on_full=on_full))
    keys = store.create_subscription(settings=Settings(ordered=True, max_backlog=1))
    with store.refused("FP422"):
        store.update_subscription("subscription", on_full=on_full)
    with store.refused("FP422"):
        store.fork_subscription("fork", on_full=on_full)
    store.fill(keys.topic, 1)
    with store.refused("FP429"):
        store.fill(keys.topic, 1)
