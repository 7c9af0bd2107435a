"""subscription_metrics_2, kept_log and the lists for a scrape; the model checks all of them after every call."""

import json

import pytest

from tests.database.store import NOW, SECOND, Kept, Metrics, Settings, Store
from tests.database.usage import measure


def test_each_message_is_counted_once(store: Store) -> None:
    keys = store.create(backoff_min=0)
    store.fill(keys.topic, 21)
    ids = store.claim(keys, 15).ids
    store.ack(keys, ids[:5])
    store.nack(keys, ids[5:9])
    store.reject(keys, ids[9:12])
    store.purge(keys, ids[9:10])
    assert store.metrics(keys) == Metrics(6, 4, 3, 2, 5, False, NOW, NOW, NOW)


def test_the_oldest_is_the_first_that_nobody_had(store: Store) -> None:
    keys = store.create()
    assert store.metrics(keys).oldest_created_at is None
    for second in range(3):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    store.claim(keys, 1)
    assert store.metrics(keys).oldest_created_at == NOW + SECOND
    store.claim(keys)
    assert store.metrics(keys).oldest_created_at is None


def test_the_oldest_with_a_filter_is_the_first_that_matches(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.fill(keys.topic, 50)
    assert store.metrics(keys) == Metrics(0, 0, 0, 0, 0, False, None)
    store.publish(keys.topic, ['{"a": 1}'], now=NOW + SECOND)
    store.publish(keys.topic, ['{"a": 1}'], now=NOW + 2 * SECOND)
    assert store.metrics(keys).oldest_created_at == NOW + SECOND


def test_the_oldest_leased_and_waiting(store: Store) -> None:
    keys = store.create(backoff_min=60)
    for second in range(4):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    one, two, three = store.claim(keys, 3).ids
    store.nack(keys, [three, two])
    metrics = store.metrics(keys)
    assert metrics[6:9] == (NOW + 3 * SECOND, NOW, NOW + SECOND)
    store.ack(keys, [one])
    assert store.metrics(keys)[6:9] == (NOW + 3 * SECOND, None, NOW + SECOND)


def test_a_reprocessed_message_is_as_old_as_it_was_though_the_log_has_it_no_more(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    ids = store.claim(keys, 2).ids
    store.reject(keys, ids)
    store.publish(keys.topic, ["3"], now=NOW + SECOND)
    assert store.trim(keys.topic, now=NOW + 2 * SECOND) == 2
    store.reprocess(keys, ids)
    assert store.metrics(keys).oldest_waiting_created_at == NOW
    store.claim(keys, 1)
    assert store.metrics(keys)[7:9] == (NOW, NOW)
    # It keeps nothing, and does not hide what does.
    assert store.kept(keys, now=NOW + 60 * SECOND).position == 3


FILTER = '{"a": [1]}'


def test_the_search_goes_on_where_it_stood(store: Store) -> None:
    keys = store.create(filter=FILTER)
    store.fill(keys.topic, 3000)
    store.publish(keys.topic, ['{"a": 1}'], now=NOW + SECOND)
    looked = []
    judged = None
    for _ in range(4):
        metrics, judged = store.judge(keys, 1000, judged=judged)
        looked.append((metrics.unjudged, metrics.oldest_created_at))
    assert looked == [(2001, None), (1001, None), (1, None), (0, NOW + SECOND)]
    assert judged is not None
    assert (judged.from_, judged.to) == (0, 3000)
    (metrics, _), usage = measure(store, lambda: store.judge(keys, 1000, judged=judged))
    assert (metrics.ahead, metrics.oldest_created_at) == (1, NOW + SECOND)
    assert usage.blocks < 120


def test_more_time_finds_it_at_once(store: Store) -> None:
    keys = store.create(filter=FILTER)
    store.fill(keys.topic, 3000)
    store.publish(keys.topic, ['{"a": 1}'] * 3, now=NOW + SECOND)
    metrics, judged = store.judge(keys, 10, milliseconds=60_000)
    assert (metrics.ahead, metrics.unjudged, metrics.oldest_created_at) == (1, 0, NOW + SECOND)
    assert metrics.estimated
    assert store.judge(keys, 10, judged=judged)[0].ahead == 3


@pytest.mark.parametrize("change", ["filter", "cursor"])
def test_what_was_judged_counts_for_that_filter_and_from_there_only(store: Store, change: str) -> None:
    keys = store.create(filter='{"a": [2]}' if change == "filter" else FILTER)
    store.publish(keys.topic, ['{"a": 1}', "{}", "{}"])
    if change == "cursor":
        store.claim(keys, 1)
    _, judged = store.judge(keys)
    assert judged is not None
    assert judged.to == 3
    if change == "filter":
        store.update_subscription("subscription", change_filter=True, filter=FILTER)
    else:
        store.seek(keys, "earliest")
    assert store.judge(keys, judged=judged)[0][6] == NOW


def test_a_waiting_message_that_keeps_the_log_is_named_with_its_cost(store: Store) -> None:
    keys = store.create(backoff_min=600)
    first = store.publish(keys.topic, ["1"]).first_position
    store.nack(keys, store.claim(keys, 1).ids)
    store.fill(keys.topic, 1000, json.dumps({"pad": "x" * 400}))
    store.claim(keys, 100)
    idle = store.create_subscription("idle", settings=Settings(start="earliest"))
    kept = store.kept(keys, now=NOW + 60 * SECOND)
    assert kept[:4] == (first, NOW, "waiting", 1001)
    assert kept.bytes == pytest.approx(1000 * (80 + 415), rel=0.02)
    assert store.kept(idle, now=NOW + 60 * SECOND)[:4] == (first, NOW, "ahead", 1001)
    assert store.kept(keys, 60, now=NOW + 60 * SECOND) == Kept(None, None, None, 0, 0)
    query = "select * from fastpubsub.inspect_kept_messages(10, 0, %s)"
    found = store.rows(query, NOW + 60 * SECOND)
    assert sorted(row[2:7] for row in found) == [
        ("idle", first, NOW, "ahead", 1001),
        ("subscription", first, NOW, "waiting", 1001),
    ]


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
    query = "select * from fastpubsub.list_subscription_metrics_2(%s, 3600, p_now => %s)"
    nothing_judged, nothing_kept = (0, None, None, None), (None, 0)
    assert [row[1:] for row in store.rows(query, 10, NOW + 3600 * SECOND)] == [
        ("subscription", "topic", 2, 0, 0, 0, 1, NOW, None, None, *nothing_judged, *nothing_kept, False, 0),
        ("others", "other", 0, 0, 0, 0, 0, None, None, None, *nothing_judged, *nothing_kept, False, 0),
    ]
    assert store.row(query, 1, NOW + 3601 * SECOND)[-4:-2] == ("ahead", 2 * (80 + 3))
    assert len(store.rows("select * from fastpubsub.list_topic_metrics(1)")) == 1


def test_the_count_of_published_messages_survives_trimming(store: Store) -> None:
    topic = store.create_topic()
    store.fill(topic, 5)
    store.trim(topic)
    assert store.rows("select * from fastpubsub.list_topic_metrics(10)") == [("topic", 5)]


def test_what_keeps_the_log_the_worst_first(store: Store) -> None:
    """Unread, leased, waiting, and a lease below what the topic still has."""
    query = "select topic_id, subscription_id, kept, since, retention_seconds from fastpubsub.list_kept_messages(%s)"
    topic = store.create_topic(retention=60)
    store.create_topic("empty")
    store.create_subscription("nothing", "empty")
    made = {name: store.create_subscription(name) for name in ("unread", "leased", "waiting", "done")}
    for second in range(4):
        store.fill(topic, 1, now=NOW + second * SECOND)
    ids = store.claim(made["leased"], 4).ids
    store.ack(made["leased"], [ids[0], ids[2], ids[3]])
    ids = store.claim(made["waiting"], 4).ids
    store.ack(made["waiting"], [ids[0], ids[1], ids[3]])
    store.nack(made["waiting"], [ids[2]], [60])
    store.ack(made["done"], store.claim(made["done"], 4).ids)
    expected = [
        ("topic", name, 4 - second, NOW + second * SECOND, 60)
        for second, name in enumerate(("unread", "leased", "waiting"))
    ]
    assert store.rows(query, 10) == expected
    assert store.rows(query, 2) == expected[:2]
    store.execute("delete from fastpubsub.messages where position < 3")
    assert store.rows(query, 10) == [expected[2]]
