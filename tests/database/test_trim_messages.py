"""trim_messages, trim_claims, list_trimmable: what nobody needs goes, the newest row of each stays (invariant 7)."""

from datetime import timedelta

import pytest

from tests.database.conftest import OpenStore
from tests.database.store import NOW, SECOND, Id, Keys, Settings, Store

LATER = NOW + timedelta(days=1)


def settled(store: Store, count: int) -> Keys:
    keys = store.create()
    store.fill(keys.topic, count)
    store.ack(keys, store.claim(keys, count).ids)
    return keys


def test_the_newest_message_stays(store: Store) -> None:
    keys = settled(store, 5)
    assert store.trim(keys.topic) == 4
    assert store.trim(keys.topic) == 0
    assert store.positions(keys.topic) == [5]


def test_in_chunks_from_the_front(store: Store) -> None:
    keys = settled(store, 5)
    assert store.trim(keys.topic, limit=3) == 3
    assert store.positions(keys.topic) == [4, 5]
    assert store.trim(keys.topic, limit=3) == 1


def test_only_what_is_older_than_the_retention(store: Store) -> None:
    keys = store.create()
    for second in range(5):
        store.publish(keys.topic, ["1"], now=NOW + second * SECOND)
    store.ack(keys, store.claim(keys).ids)
    assert store.trim(keys.topic, 10, now=NOW + 10 * SECOND) == 0
    assert store.trim(keys.topic, 10, now=NOW + 12 * SECOND) == 2
    assert store.positions(keys.topic) == [3, 4, 5]


def test_the_retention_of_the_topic_counts_instead(store: Store) -> None:
    topic = store.create_topic(retention=100)
    store.fill(topic, 3)
    assert store.trim(topic, 1, now=NOW + 100 * SECOND) == 0
    assert store.trim(topic, 1, now=NOW + 101 * SECOND) == 2
    store.fill(topic, 3, now=LATER)
    store.execute("select fastpubsub.update_topic('topic', null)")
    assert store.trim(topic, 1, now=LATER + 2 * SECOND) == 3


def test_a_topic_without_subscriptions_keeps_the_retention(store: Store) -> None:
    topic = store.create_topic()
    store.fill(topic, 3)
    assert store.trim(topic, 3600) == 0
    assert store.trim(topic, 0) == 2


def test_a_missing_or_empty_topic_is_nothing_to_do(store: Store) -> None:
    assert store.trim(12345) == 0
    assert store.trim(store.create_topic()) == 0


def test_nothing_that_a_subscription_still_needs(store: Store) -> None:
    topic = store.create_topic()
    ahead, leased, waiting = (store.create_subscription(name) for name in ("ahead", "leased", "waiting"))
    store.fill(topic, 10)
    ids = {keys: store.claim(keys).ids for keys in (leased, waiting)}
    store.ack(leased, ids[leased][:5] + ids[leased][6:])
    store.ack(waiting, ids[waiting][:3] + ids[waiting][4:])
    store.nack(waiting, ids[waiting][3:4], [500])
    store.ack(ahead, store.claim(ahead, 2).ids)
    assert store.trim(topic) == 2
    store.ack(ahead, store.claim(ahead, 100).ids)
    assert store.trim(topic) == 1
    store.ack(waiting, store.claim(waiting, now=LATER).ids)
    assert store.trim(topic) == 2
    store.ack(leased, ids[leased])
    assert store.trim(topic) == 4
    assert store.positions(topic) == [10]


def test_dead_letters_pin_nothing(store: Store) -> None:
    keys = store.create()
    store.fill(keys.topic, 3)
    store.reject(keys, store.claim(keys).ids)
    assert store.trim(keys.topic) == 2
    assert len(store.dead_letters(keys)) == 3


def test_one_process_at_a_time(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    keys = settled(first, 5)
    with first.transaction():
        assert first.trim(keys.topic, limit=1) == 1
        assert second.trim(keys.topic) == 0
    assert second.trim(keys.topic) == 3


@pytest.mark.parametrize("kept", range(1, 12))
def test_the_first_kept_position_is_found_wherever_it_is(store: Store, kept: int) -> None:
    keys = settled(store, 11)
    assert store.trim(keys.topic, limit=kept - 1) == min(kept - 1, 10)
    assert store.value("select fastpubsub.first_position(%s, 11)", keys.topic) == kept
    store.seek(keys, "earliest")
    assert store.claim(keys, 1).positions == [kept]


# trim_claims


def sequences(store: Store, keys: Keys) -> list[int]:
    query = "select sequence from fastpubsub.claims where topic_key = %s and subscription_key = %s order by sequence"
    return [sequence for (sequence,) in store.rows(query, *keys)]


def test_the_newest_claim_of_each_subscription_stays(store: Store) -> None:
    keys = store.create()
    other = store.create_subscription("other", settings=Settings())
    store.fill(keys.topic, 6)
    for _ in range(6):
        store.claim(keys, 1)
    before = store.cursor(keys)
    assert sequences(store, keys) == [1, 2, 3, 4, 5, 6, 7]
    assert store.trim_claims(keys.topic, limit=4) == 4
    assert sequences(store, keys) == [5, 6, 7]
    assert store.trim_claims(keys.topic) == 2
    assert store.trim_claims(keys.topic) == 0
    assert store.cursor(keys) == before
    assert sequences(store, other) == [1]
    store.fill(keys.topic, 1)
    store.claim(keys)
    assert sequences(store, keys) == [7, 8]


def test_a_lease_that_begins_in_front_of_the_log_keeps_the_rest(store: Store) -> None:
    """A reprocessed dead letter, whose message was trimmed, is claimed together with the message behind it."""
    keys = store.create()
    store.fill(keys.topic, 2)
    store.reject(keys, store.claim(keys, 1).ids)
    assert store.trim(keys.topic) == 1
    store.fill(keys.topic, 1)
    store.reprocess(keys, [Id(1, None, NOW)])
    claimed = store.claim(keys, 2)
    assert claimed.positions == [1, 2]
    assert store.kept(keys, now=NOW + SECOND)[:3] == (2, NOW, "leased")
    assert store.trim(keys.topic) == 0
    store.nack(keys, claimed.ids, [0, 0])
    assert store.claim(keys, 2, now=NOW + SECOND).payloads == ["{}", "{}"]


def test_idempotency_keys_go_after_their_window(store: Store) -> None:
    topic = store.create_topic()
    insert = "insert into fastpubsub.idempotency_keys values (%s, 'client', %s, '', 1, 1, %s)"
    for second in range(5):
        store.execute(insert, topic, str(second), NOW + second * SECOND)
    assert store.trim_claims(topic, 60, now=NOW + 60 * SECOND) == 0
    assert store.trim_claims(topic, 60, limit=2, now=NOW + 63 * SECOND) == 2
    assert store.rows("select key from fastpubsub.idempotency_keys order by 1") == [("2",), ("3",), ("4",)]
    assert store.trim_claims(topic, 60, now=NOW + 63 * SECOND) == 1


# list_trimmable


def trimmable(store: Store, retention: int = 60, window: int = 3600) -> list[int]:
    query = "select * from fastpubsub.list_trimmable(%s, %s, %s)"
    return [topic for (topic,) in store.rows(query, retention, window, NOW + 100 * SECOND)]


def test_topics_with_work_are_listed(store: Store) -> None:
    assert trimmable(store) == []
    old, fresh, single, own = (
        store.create_topic(name, retention=retention)
        for name, retention in (("old", None), ("fresh", None), ("single", None), ("own", 1000))
    )
    for topic in (old, old, single, own, own):
        store.publish(topic, ["1"])
    for _ in range(2):
        store.publish(fresh, ["1"], now=NOW + 50 * SECOND)
    assert trimmable(store) == [old]
    assert trimmable(store, retention=1) == [old, fresh]


def test_topics_with_claims_or_keys_to_trim_are_listed(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    assert trimmable(store) == []
    store.claim(keys)
    assert trimmable(store) == [keys.topic]
    store.trim_claims(keys.topic)
    assert trimmable(store) == []
    insert = "insert into fastpubsub.idempotency_keys values (%s, 'client', 'key', '', 1, 1, %s)"
    store.execute(insert, keys.topic, NOW)
    assert trimmable(store) == []
    assert trimmable(store, window=99) == [keys.topic]
