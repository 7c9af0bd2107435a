"""subscription_metrics and the lists for a scrape; the model checks that they add up after every call."""

import json

from tests.database.store import NOW, SECOND, Metrics, Store


def test_each_message_is_counted_once(store: Store) -> None:
    keys = store.create(backoff_min=0)
    store.fill(keys.topic, 21)
    ids = store.claim(keys, 15).ids
    store.ack(keys, ids[:5])
    store.nack(keys, ids[5:9])
    store.reject(keys, ids[9:12])
    store.purge(keys, ids[9:10])
    assert store.metrics(keys) == Metrics(6, 4, 3, 2, 5, False, NOW)


def test_the_oldest_is_the_first_that_nobody_had(store: Store) -> None:
    keys = store.create()
    assert store.metrics(keys).oldest_created_at is None
    for second in range(3):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    store.claim(keys, 1)
    assert store.metrics(keys).oldest_created_at == NOW + SECOND
    store.claim(keys)
    assert store.metrics(keys).oldest_created_at is None


def test_what_is_ahead_of_a_filter_is_judged(store: Store) -> None:
    keys = store.create(filter='{"a": [0]}')
    store.publish(keys.topic, [json.dumps({"a": number % 4}) for number in range(100)])
    assert store.metrics(keys).ahead == 25
    store.claim(keys, 5)
    assert store.metrics(keys)[:5] == (20, 0, 5, 0, 0)


def test_beyond_a_bound_it_is_estimated_and_says_so(store: Store) -> None:
    keys = store.create(filter='{"a": [0]}')
    store.publish(keys.topic, [json.dumps({"a": number % 4}) for number in range(4000)])
    assert store.metrics(keys, 1000)[:6] == (1000, 0, 0, 0, 0, True)
    assert store.metrics(keys, 3999).estimated
    assert store.metrics(keys, 4000)[:6] == (1000, 0, 0, 0, 0, False)
    keys = store.create_subscription("everything")
    store.fill(keys.topic, 5000)
    assert store.metrics(keys, 1000)[:6] == (5000, 0, 0, 0, 0, False)


def test_lists_for_a_scrape(store: Store) -> None:
    keys = store.create()
    store.create_topic("other")
    store.create_subscription("others", "other")
    store.fill(keys.topic, 3)
    store.ack(keys, store.claim(keys, 1).ids)
    assert store.rows("select * from fastpubsub.list_topic_metrics(10)") == [("topic", 3), ("other", 0)]
    assert store.rows("select * from fastpubsub.list_subscription_metrics(10)") == [
        ("subscription", "topic", 2, 0, 0, 0, 1, NOW),
        ("others", "other", 0, 0, 0, 0, 0, None),
    ]
    assert len(store.rows("select * from fastpubsub.list_topic_metrics(1)")) == 1
    assert len(store.rows("select * from fastpubsub.list_subscription_metrics(1)")) == 1


def test_the_count_of_published_messages_survives_trimming(store: Store) -> None:
    topic = store.create_topic()
    store.fill(topic, 5)
    store.trim(topic)
    assert store.rows("select * from fastpubsub.list_topic_metrics(10)") == [("topic", 5)]
