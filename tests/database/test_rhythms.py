"""What the findings read from the history: whether more came than went, and how long a silence was usual."""

from datetime import UTC, datetime, timedelta

from tests.database.conftest import OpenStore
from tests.database.store import NOW, Keys, Row, Settings, Store

FLOWS = "select * from fastpubsub.list_flows(%s, 300, %s)"
RHYTHMS = "select * from fastpubsub.list_rhythms(%s, %s, 600, %s, 300, %s)"
HISTORY = """
    insert into fastpubsub.history (topic_key, subscription_key, at, interval_seconds, published, delivered, filtered)
    values (%s, %s, %s, %s, %s, %s, %s)
"""
START = int(NOW.timestamp()) // 60 * 60


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def happened(
    store: Store,
    topic: int,
    subscription: int,
    seconds: int,
    *,
    interval: int = 5,
    published: int = 0,
    delivered: int = 0,
    filtered: int = 0,
) -> None:
    store.execute(HISTORY, topic, subscription, START + seconds, interval, published, delivered, filtered)


def test_what_came_and_what_went_in_two_halves(store: Store) -> None:
    store.create_topic(now=at(-1000))
    keys = store.create_subscription(settings=Settings(), now=at(-1000))
    other = store.create_subscription("other", settings=Settings(), now=at(-1000))
    store.create_subscription("young", settings=Settings(), now=at(-200))
    for seconds, count in ((-305, 1000), (-300, 1), (-155, 2), (-150, 4), (-5, 8), (0, 1000)):
        happened(store, keys.topic, 0, seconds, published=count)
        happened(store, *keys, seconds, delivered=count, filtered=1)
    assert store.rows(FLOWS, ["other", "nowhere", "subscription", "young"], at(2)) == [
        ("other", 3, 0, 12, 0),
        ("subscription", 3, 5, 12, 14),
    ]
    assert store.rows(FLOWS, [], at(2)) == []
    assert other.topic == keys.topic


def rhythms(store: Store, seconds: float, names: list[str], topics: list[str] | None = None) -> list[Row]:
    return store.rows(RHYTHMS, topics, names, 100, at(seconds))


def silent(store: Store) -> Keys:
    """Something was published and delivered every minute, and then no more, but for a pause of five minutes."""
    store.create_topic(now=at(-90_000))
    keys = store.create_subscription(settings=Settings(), now=at(-90_000))
    for minute in (*range(-100, -60), *range(-55, -20)):
        interval = 60 if minute < -60 else 5
        happened(store, keys.topic, 0, minute * 60, interval=interval, published=1)
        happened(store, *keys, minute * 60, interval=interval, delivered=1)
    happened(store, *keys, -19 * 60, filtered=1)
    happened(store, *keys, -86_405, interval=60, delivered=1)
    store.publish(keys.topic, ["1"], now=at(-20 * 60 - 58))
    return keys


def test_how_long_a_silence_was_usual(store: Store) -> None:
    silent(store)
    topic = ("topic", None, 75, 79 * 60, 6 * 60, at(-20 * 60 - 58))
    subscription = ("topic", "subscription", 75, 79 * 60, 6 * 60, at(-21 * 60 + 5))
    assert rhythms(store, 0, ["subscription", "nowhere"]) == [topic, subscription]
    assert rhythms(store, 0, []) == [topic]
    assert rhythms(store, 0, ["subscription"], []) == [subscription]
    assert rhythms(store, 0, [], ["other"]) == []
    assert rhythms(store, -11 * 60, []) == [], "not silent for ten minutes"
    assert rhythms(store, -16 * 60, ["subscription"], []) == [], "something was delivered in the last five minutes"
    assert rhythms(store, 86_400, ["subscription"]) == [], "a day later nothing is known of it"


def test_only_the_topics_that_fell_silent_last(store: Store) -> None:
    for number in range(5):
        topic = store.create_topic(f"t{number}", now=at(-5000))
        store.publish(topic, ["1"], now=at(-700 - number))
        happened(store, topic, 0, -705, published=1)
    store.create_topic("never", now=at(-5000))
    assert sorted(row[0] for row in store.rows(RHYTHMS, None, [], 2, at(0))) == ["t0", "t1"]
    assert store.rows(RHYTHMS, None, [], 2, at(0) + timedelta(days=1)) == []


def test_the_oldest_transaction(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    query = "select fastpubsub.oldest_transaction()"
    assert store.value(query) is None
    with other.transaction():
        other.execute("select pg_current_xact_id()")
        begun = other.value("select xact_start from pg_stat_activity where pid = pg_backend_pid()")
        assert store.value(query) == begun
        assert other.value(query) is None, "it does not find itself"
    assert store.value(query) is None
