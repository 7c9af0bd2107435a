"""fork_subscription: the settings of another, before the oldest message that it has not settled."""

from datetime import timedelta
from typing import Any

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Id, Keys, Store, wait_until_blocked

LATER = NOW + timedelta(days=1)


@pytest.fixture
def keys(store: Store) -> Keys:
    """Six messages: the first four handed out one by one, the last two ahead."""
    keys = store.create(ack_deadline=30, max_attempts=3, backoff_min=1, backoff_max=2)
    store.publish(keys.topic, [f'{{"n": {number}}}' for number in range(1, 7)])
    for _ in range(4):
        store.claim(keys, 1)
    return keys


def settle(store: Store, keys: Keys, *positions: int) -> None:
    store.ack(keys, [one for one in store.leased(keys) if one.position in positions])


@pytest.mark.parametrize(
    ("settled", "following"),
    [((), 1), ((1,), 2), ((2, 3, 4), 1), ((1, 2, 3), 4), ((1, 3), 2), ((1, 2, 3, 4), 5)],
)
def test_it_begins_before_the_oldest_unsettled_message(
    store: Store, keys: Keys, settled: tuple[int, ...], following: int
) -> None:
    settle(store, keys, *settled)
    before = store.metrics(keys)
    fork = store.fork_subscription("fork")
    assert store.claim(fork).positions == list(range(following, 7))
    assert store.metrics(keys) == before


def test_a_waiting_message_counts_like_a_leased_one(store: Store, keys: Keys) -> None:
    store.nack(keys, [one for one in store.leased(keys) if one.position == 2])
    settle(store, keys, 1, 3, 4)
    assert store.claim(store.fork_subscription("fork")).positions == [2, 3, 4, 5, 6]


def test_a_dead_letter_stays_with_the_other(store: Store, keys: Keys) -> None:
    store.reject(keys, [one for one in store.leased(keys) if one.position == 1])
    settle(store, keys, 2, 3, 4)
    fork = store.fork_subscription("fork")
    assert (store.metrics(fork).dead, store.claim(fork).positions) == (0, [5, 6])


@pytest.mark.parametrize("held", [False, True], ids=["waiting", "leased"])
def test_a_reprocessed_one_whose_message_was_trimmed_does_not_count(store: Store, keys: Keys, held: bool) -> None:
    store.reject(keys, [one for one in store.leased(keys) if one.position == 1])
    settle(store, keys, 2, 3, 4)
    assert store.trim(keys.topic, now=LATER) == 4
    store.reprocess(keys, [Id(1, None, NOW)], now=LATER)
    if held:
        assert store.claim(keys, 1, now=LATER).positions == [1]
    assert store.claim(store.fork_subscription("fork")).positions == [5, 6]


def test_of_an_empty_topic(store: Store) -> None:
    keys = store.create()
    fork = store.fork_subscription("fork")
    store.publish(keys.topic, ["1"])
    assert store.claim(fork).positions == store.claim(keys).positions == [1]


SETTINGS = (
    "select filter::text, ack_deadline_seconds, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds,"
    " paused_at from fastpubsub.list_subscriptions_4(0, 1, array[%s])"
)


def test_settings_are_those_of_the_other_but_for_a_pause(store: Store, keys: Keys) -> None:
    store.update_subscription("subscription", change_filter=True, filter='{"n": [1, 4.0]}')
    store.pause()
    fork = store.fork_subscription("fork")
    assert store.row(SETTINGS, "fork") == ('{"n": [1, 4.0]}', 30, 3, 1, 2, None)
    assert store.claim(fork).positions == [1, 4]
    assert store.explain(fork, 2).state == "filtered"


def test_given_settings_come_first(store: Store, keys: Keys) -> None:
    store.update_subscription("subscription", change_filter=True, filter='{"n": [1]}')
    fork = store.fork_subscription("fork", filter='{"n": [2]}', ack_deadline_seconds=9, backoff_max_seconds=7)
    assert store.row(SETTINGS, "fork") == ('{"n": [2]}', 9, 3, 1, 7, None)
    assert store.claim(fork).positions == [2]
    for number, nothing in enumerate((None, "null", "{}")):
        everything = store.fork_subscription(f"all-{number}", filter=nothing)
        assert store.row(SETTINGS, f"all-{number}")[0] is None
        assert store.claim(everything).positions == [1, 2, 3, 4, 5, 6]


def test_what_it_refuses(store: Store, keys: Keys) -> None:
    store.create_topic("elsewhere")
    refused: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("FP404", "fork", "nobody", "topic", {}),
        ("FP404", "fork", "fork", "topic", {}),
        ("FP404", "fork", "subscription", "nowhere", {}),
        ("FP409", "subscription", "subscription", "topic", {}),
        ("FP422", "fork", "subscription", "elsewhere", {}),
        ("FP422", "fork", "subscription", "topic", {"backoff_min_seconds": 3}),
        ("FP422", "fork", "subscription", "topic", {"filter": '{"a": []}'}),
    ]
    for sqlstate, name, of, topic, settings in refused:
        with store.refused(sqlstate):
            store.fork_subscription(name, of, topic, **settings)
    assert store.value("select count(*) from fastpubsub.subscriptions") == 1


def test_it_waits_for_a_trim(open_store: OpenStore, background: Background) -> None:
    """A trim does not know the new cursor yet, and the other may go on at once."""
    trimming, forking, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(start="earliest")
    watcher.fill(keys.topic, 5)
    watcher.ack(keys, watcher.claim(keys, 3).ids)
    with trimming.transaction():
        assert trimming.trim(keys.topic, now=LATER) == 3
        waiting = background(forking.fork_subscription, "fork")
        wait_until_blocked(watcher, forking, by=trimming)
    assert watcher.claim(waiting.result()).positions == [4, 5]


def test_a_trim_waits_for_it_and_others_do_not(open_store: OpenStore, background: Background) -> None:
    forking, trimming, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(start="earliest")
    watcher.fill(keys.topic, 5)
    with forking.transaction():
        fork = forking.fork_subscription("fork")
        watcher.ack(keys, watcher.claim(keys, 4).ids)
        watcher.nack(keys, watcher.claim(keys).ids)
        watcher.seek(keys, "latest")
        watcher.publish(keys.topic, ["6"])
        assert trimming.trim(keys.topic, now=LATER) == 0
        waiting = background(trimming.trim, keys.topic, wait=True, now=LATER)
        wait_until_blocked(watcher, trimming, by=forking)
    assert waiting.result() == 0
    assert watcher.claim(fork).positions == [1, 2, 3, 4, 5, 6]


def test_a_deletion_of_the_topic_waits_for_it(open_store: OpenStore, background: Background) -> None:
    forking, deleting, watcher = open_store(), open_store(), open_store()
    watcher.create()
    with forking.transaction():
        forking.fork_subscription("fork")
        waiting = background(deleting.delete_topic)
        wait_until_blocked(watcher, deleting, by=forking)
    waiting.result()
    assert watcher.value("select count(*) from fastpubsub.subscriptions") == 0
    watcher.empty_purges()
    assert watcher.orphans() == {}


def test_of_one_that_is_being_deleted(open_store: OpenStore) -> None:
    """It does not wait: until the deletion commits, the other is there."""
    deleting, forking, watcher = open_store(), open_store(), open_store()
    keys = watcher.create(start="earliest")
    watcher.fill(keys.topic, 2)
    with deleting.transaction():
        deleting.delete_subscription()
        fork = forking.fork_subscription("fork", now=NOW + SECOND)
    with watcher.refused("FP404"):
        watcher.fork_subscription("late")
    assert watcher.claim(fork).positions == [1, 2]
