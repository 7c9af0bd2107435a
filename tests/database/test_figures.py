"""The figures of lists and of the whole server; what they count is compared with the model by test_model.py."""

from datetime import timedelta

from tests.database.store import NOW, SECOND, Keys, Settings, Store
from tests.database.usage import measure

HOUR = timedelta(hours=1)
FIGURES = "select * from fastpubsub.list_subscription_figures_2(%s, 200, %s)"
LOADS = "select * from fastpubsub.list_loads_2(%s, 60)"


def filtered(store: Store, keys: Keys) -> int:
    return store.metrics(keys).filtered


def test_what_the_cursor_passes_and_nobody_gets_is_filtered(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ["{}", '{"a": 1}', "{}", "{}", '{"a": 1}', "{}"])
    claimed = [store.claim(keys, 1).filtered for _ in range(4)]
    assert claimed == [1, 2, 1, None]
    assert filtered(store, keys) == 4
    store.update_subscription("subscription", change_filter=True, filter=None)
    store.publish(keys.topic, ["{}", "{}"])
    assert store.claim(keys, 10).filtered == 0
    assert filtered(store, keys) == 4


def test_a_seek_counts_nothing_and_what_it_replays_again(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.publish(keys.topic, ["{}", "{}", '{"a": 1}'])
    store.seek(keys, "latest")
    assert filtered(store, keys) == 0
    for expected in (2, 4):
        store.seek(keys, "earliest")
        store.claim(keys, 10)
        assert filtered(store, keys) == expected
    store.trim_claims(keys.topic)
    assert filtered(store, keys) == 4


def test_the_figures_of_subscriptions(store: Store) -> None:
    keys = store.create(backoff_min=60)
    store.create_subscription("idle", "topic")
    for second in range(3):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    store.nack(keys, store.claim(keys, 1).ids)
    store.claim(keys, 1)
    rows = store.rows(FIGURES, ["subscription", "idle", "unknown"], NOW + 10 * SECOND)
    assert sorted(row[:12] for row in rows) == [
        ("idle", 3, 0, 0, 0, 0, 0, False, False, 10, None, None),
        ("subscription", 1, 1, 1, 0, 0, 0, False, False, 8, 9, 10),
    ]
    assert store.rows(FIGURES, [], None) == []


def test_the_figures_of_topics(store: Store) -> None:
    keys = store.create()
    store.create_topic("empty")
    store.publish(keys.topic, ["1", "2", "3"])
    store.ack(keys, store.claim(keys, 2).ids)
    assert store.trim(keys.topic, now=NOW + SECOND) == 2
    query = "select * from fastpubsub.list_topic_figures(%s)"
    rows = store.rows(query, ["topic", "empty", "unknown"])
    assert sorted(row[:4] for row in rows) == [("empty", 0, 0, 0), ("topic", 3, 1, 1)]


def test_the_loads_are_those_with_something_to_do(store: Store) -> None:
    keys = store.create(backoff_min=60)
    idle = store.create_subscription("idle", "topic")
    store.create_subscription("filtered", "topic", Settings(filter='{"a": [1]}', start="earliest"))
    for second in range(4):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    store.seek(idle, "latest")
    store.nack(keys, store.claim(keys, 1).ids)
    store.claim(keys, 1)
    store.reject(keys, store.claim(keys, 1).ids, now=NOW + 9 * SECOND)
    times = (NOW + 3 * SECOND, NOW + SECOND, NOW, NOW + 9 * SECOND)
    assert sorted(store.rows(LOADS, None)) == [
        ("topic", "filtered", True, 4, 0, 0, 0, NOW, None, None, None, 60, None, None, None, None),
        ("topic", "subscription", False, 1, 1, 1, 1, *times, 60, None, NOW + 60 * SECOND, None, None),
    ]
    assert [row[1] for row in store.rows(LOADS, ["filtered", "idle"])] == ["filtered"]
    assert store.rows(LOADS, []) == []
    store.pause(name="idle", is_paused=True, now=NOW)
    (paused,) = store.rows(LOADS, ["idle"])
    assert paused == ("topic", "idle", False, 0, 0, 0, 0, None, None, None, None, 60, NOW, None, None, None)


def test_sums_of_what_is_visible(store: Store) -> None:
    keys = store.create()
    store.create_topic("other")
    store.publish(keys.topic, ["1", "2"])
    query = "select * from fastpubsub.sum_topics(%s, %s)"
    assert store.row(query, None, None) == (2, 1, 2)
    assert store.row(query, ["other"], []) == (1, 0, 0)
    assert store.row(query, ["topic"], ["subscription"]) == (1, 1, 2)


def test_pages_by_key_and_part(store: Store) -> None:
    for name in ("B", "a", "ab", "c"):
        store.create_topic(name)
        store.create_subscription(name, name)
    for kind, more in (("topics", ""), ("subscriptions", ", null")):
        query = f"select id from fastpubsub.list_{kind}(0, 10, null{more}, %s, %s)"
        assert store.rows(query, None, "B") == [("a",), ("ab",), ("c",)]
        assert store.rows(query, "B", None) == [("B",), ("ab",)]
        assert store.rows(query, "b", "B") == [("ab",)]
        assert store.rows(query, "%", None) == []


def test_the_figures_of_a_page_walk_over_no_log(store: Store) -> None:
    keys = store.create(filter='{"a": [1]}')
    store.fill(keys.topic, 5000)
    (row,), usage = measure(store, lambda: store.rows(FIGURES, ["subscription"], None))
    assert row[7] is True
    assert usage.blocks < 150
