"""create_, get_, list_, update_ and resolve_ of topics and subscriptions; deleting has a file of its own."""

import json

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Settings, Store, wait_until_blocked

LAST_TOPIC_KEY = 2**32 - 1


def test_a_topic(store: Store) -> None:
    topic = store.create_topic("Topic.1_a-b", retention=60)
    assert store.row("select * from fastpubsub.get_topic('Topic.1_a-b')") == (
        topic,
        "Topic.1_a-b",
        60,
        NOW,
        None,
    )
    assert store.value("select fastpubsub.resolve_topic('Topic.1_a-b')") == topic


def test_ids_are_taken_once_and_told_apart_by_case(store: Store) -> None:
    store.create()
    with store.refused("FP409"):
        store.create_topic()
    with store.refused("FP409"):
        store.create_subscription()
    store.create_topic("TOPIC")
    store.create_subscription("SUBSCRIPTION")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "é", "a" * 129, "a\n", "a:b"])
def test_what_is_no_id_is_refused(store: Store, name: str) -> None:
    with store.refused("23514"):
        store.create_topic(name)
    store.create_topic()
    with store.refused("23514"):
        store.create_subscription(name)


def test_what_is_missing(store: Store) -> None:
    for query in (
        "select fastpubsub.get_topic('topic')",
        "select fastpubsub.resolve_topic('topic')",
        "select fastpubsub.update_topic('topic', 1)",
        "select fastpubsub.delete_topic('topic')",
        "select fastpubsub.resolve_subscription('subscription')",
        "select fastpubsub.update_subscription_2('subscription')",
        "select fastpubsub.delete_subscription('subscription')",
        "select fastpubsub.require_subscription(1, 1)",
    ):
        with store.refused("FP404"):
            store.execute(query)
    with store.refused("FP404"):
        store.create_subscription()


def test_lists_are_by_id_in_pages(store: Store) -> None:
    names = ["B", "Z", "_", "a", "b", "b-", "b.", "b0"]
    for name in reversed(names):
        store.create_topic(name)
        store.create_subscription(name, name)
    for kind in ("topics", "subscriptions"):
        query = f"select id from fastpubsub.list_{kind}(%s, %s, %s)"
        assert store.rows(query, 0, 100, None) == [(name,) for name in sorted(names)]
        assert store.rows(query, 2, 3, None) == [(name,) for name in sorted(names)[2:5]]
        assert store.rows(query, 2**40, 3, None) == []
        assert store.rows(query, 0, 100, ["b", "B", "no"]) == [("B",), ("b",)]
        assert store.rows(query, 0, 100, []) == []


def test_the_subscriptions_of_a_topic(store: Store) -> None:
    for topic in ("t", "u"):
        store.create_topic(topic)
        for number in range(2):
            store.create_subscription(f"{topic}{number}", topic)
    query = "select id from fastpubsub.list_subscriptions_4(0, %s, %s, %s)"
    assert store.rows(query, 10, None, "u") == [("u0",), ("u1",)]
    assert store.rows(query, 1, None, "u") == [("u0",)]
    assert store.rows(query, 10, ["t0", "u1"], "u") == [("u1",)]
    assert store.rows(query, 10, None, "nothing") == []


def test_a_subscription_is_listed_as_it_was_made(store: Store) -> None:
    store.create_topic("failed")
    store.create_topic()
    settings = Settings(
        filter='{"a":  ["AT&T"]}',
        ack_deadline=7,
        max_attempts=8,
        backoff_min=9,
        backoff_max=10,
        max_in_flight=5,
        rate_limit=0.25,
        dead_letter_topic="failed",
        expire_after=60,
        max_backlog=70,
        on_full="dead_letter",
        backoff_jitter=0.25,
    )
    keys = store.create_subscription(settings=settings, now=NOW + SECOND)
    listed = (
        "subscription",
        "topic",
        '{"a":  ["AT&T"]}',
        7,
        8,
        9,
        10,
        NOW + SECOND,
        None,
        None,
        False,
        5,
        0.25,
        "failed",
    )
    assert store.rows("select * from fastpubsub.list_subscriptions_4(0, 10)") == [
        (*listed, 60, NOW + 181 * SECOND, "drop", "continue", 70, "dead_letter", None, 0.25)
    ]
    assert store.row("select * from fastpubsub.resolve_subscription('subscription')") == keys


def test_an_update_changes_what_it_names(store: Store) -> None:
    store.create(filter='{"a": [1]}', ack_deadline=1, max_attempts=2, backoff_min=3, backoff_max=4)
    query = """
        select filter, ack_deadline_seconds, max_delivery_attempts, backoff_min_seconds, backoff_max_seconds
        from fastpubsub.list_subscriptions_4(0, 10)
    """
    store.update_subscription("subscription", ack_deadline_seconds=10)
    assert store.row(query) == ('{"a": [1]}', 10, 2, 3, 4)
    store.update_subscription("subscription", max_delivery_attempts=20, backoff_min_seconds=4)
    assert store.row(query) == ('{"a": [1]}', 10, 20, 4, 4)
    store.update_subscription("subscription", backoff_max_seconds=40, filter='{"b": [1]}')
    assert store.row(query) == ('{"a": [1]}', 10, 20, 4, 40)
    store.update_subscription("subscription", change_filter=True, filter='{"b": [1]}')
    assert store.row(query) == ('{"b": [1]}', 10, 20, 4, 40)
    store.update_subscription("subscription", change_filter=True, filter="{}")
    assert store.row(query) == (None, 10, 20, 4, 40)


def test_a_backoff_that_shrinks_is_refused(store: Store) -> None:
    store.create(backoff_min=5, backoff_max=10)
    with store.refused("FP422"):
        store.create_subscription("other", settings=Settings(backoff_min=2, backoff_max=1))
    for changes in (
        {"backoff_max_seconds": 4},
        {"backoff_min_seconds": 11},
        {"backoff_min_seconds": 3, "backoff_max_seconds": 2},
    ):
        with store.refused("FP422"):
            store.update_subscription("subscription", **changes)
    store.update_subscription("subscription", backoff_min_seconds=11, backoff_max_seconds=11)


def test_a_message_id_has_room_for_so_many_topics(store: Store) -> None:
    store.execute(f"alter sequence fastpubsub.topics_topic_key_seq restart with {LAST_TOPIC_KEY}")
    assert store.create_topic("last") == LAST_TOPIC_KEY
    keys = store.create_subscription(topic="last")
    store.publish(keys.topic, ["1"])
    assert store.claim(keys).positions == [1]
    with store.refused("FP422"):
        store.create_topic("one-too-many")
    assert store.rows("select id from fastpubsub.list_topics(0, 10)") == [("last",)]


def test_the_latest_is_behind_what_is_being_published(open_store: OpenStore, background: Background) -> None:
    publishing, creating, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    with publishing.transaction():
        publishing.publish(topic, ["1"])
        waiting = background(creating.create_subscription)
        wait_until_blocked(watcher, creating, by=publishing)
    keys = waiting.result()
    watcher.publish(topic, ["2"])
    assert watcher.claim(keys).payloads == ["2"]


def test_two_of_one_name_at_once(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    with first.transaction():
        first.create_topic()
        waiting = background(second.create_topic)
        wait_until_blocked(watcher, second, by=first)
    assert getattr(waiting.exception(), "sqlstate", None) == "FP409"


def test_an_update_waits_for_a_claim_and_counts_from_the_next(open_store: OpenStore, background: Background) -> None:
    claiming, updating, watcher = open_store(), open_store(), open_store()
    keys = watcher.create()
    watcher.publish(keys.topic, [json.dumps({"a": number}) for number in (1, 2, 1, 2)])
    with claiming.transaction():
        assert claiming.claim(keys, 1).positions == [1]
        waiting = background(updating.update_subscription, "subscription", change_filter=True, filter='{"a": [2]}')
        wait_until_blocked(watcher, updating, by=claiming)
    waiting.result()
    assert watcher.claim(keys).positions == [2, 4]
