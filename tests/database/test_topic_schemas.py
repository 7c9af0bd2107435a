"""The version of a topic's schema decides whether what was checked by another one is stored."""

import pytest

from tests.database import refused
from tests.database.conftest import Background, OpenStore
from tests.database.outbox import Relay, publish, waiting
from tests.database.store import Store, wait_until_blocked

SCHEMA = '{"type": "object"}'
CHANGE = "select fastpubsub.update_topic('topic', p_change_retention => false, p_schema => %s, p_change_schema => true)"


def version(store: Store) -> int:
    return int(store.value("select schema_version from fastpubsub.heads"))


def publish_once(store: Store, topic: int, schema_version: int) -> None:
    query = """
        select fastpubsub.publish_messages_once(%s, '{1}'::json[], null, '{1}', '{c}', '{k}', array[''::bytea], 60, %s)
    """
    store.row(query, topic, schema_version)


def test_a_topic_without_a_schema_has_version_0(store: Store) -> None:
    topic = store.create_topic()
    assert version(store) == 0
    store.execute(CHANGE, SCHEMA)
    store.execute(CHANGE, None)
    assert version(store) == 0
    store.publish(topic, ["1"])


def test_each_text_has_its_own_version_and_keeps_it(store: Store) -> None:
    store.create_topic()
    versions = []
    for schema in (SCHEMA, "{}", SCHEMA, "null"):
        store.execute(CHANGE, schema)
        versions.append(version(store))
    assert len(set(versions)) == 3
    assert versions[0] == versions[2]
    assert 0 not in versions


def test_changing_one_setting_keeps_the_other(store: Store) -> None:
    store.create_topic(retention=5)
    store.execute(CHANGE, SCHEMA)
    store.execute("select fastpubsub.update_topic('topic', 7)")
    query = "select retention_seconds, schema from fastpubsub.get_topic('topic')"
    assert store.row(query) == (7, SCHEMA)
    store.execute(CHANGE, None)
    assert store.row(query) == (7, None)


def test_what_another_schema_was_asked_about_is_not_stored(store: Store) -> None:
    topic = store.create_topic()
    store.execute(CHANGE, SCHEMA)
    current = version(store)
    for stale in (0, current + 1):
        with store.refused("FP428"):
            store.publish(topic, ["1"], schema_version=stale)
        with store.refused("FP428"):
            publish_once(store, topic, stale)
    assert store.positions(topic) == []
    store.publish(topic, ["1"], schema_version=current)
    publish_once(store, topic, current)
    assert store.positions(topic) == [1, 2]


def test_a_publish_that_waits_for_the_change_sees_it(open_store: OpenStore, background: Background) -> None:
    changing, publishing, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    with changing.transaction():
        changing.execute(CHANGE, SCHEMA)
        waiting = background(publishing.publish, topic, ["1"])
        wait_until_blocked(watcher, publishing, by=changing)
    with pytest.raises(Exception, match="schema of the topic has changed"):
        waiting.result()
    assert watcher.positions(topic) == []


def test_the_relay_must_know_the_schema_of_what_sql_publishes(open_store: OpenStore) -> None:
    """Whether it was published before the topic got one or after."""
    store = open_store()
    topic = store.create_topic()
    publish(store, "{}")
    store.execute(CHANGE, SCHEMA)
    publish(store, "{}")
    with store.refused("FP428"):
        Relay(store).everything()
    assert (store.positions(topic), waiting(store)) == ([], 2)
    assert refused.move(store, topic, refused.rows(store, topic), version(store)) == ("topic", 2, 0, 0)
    assert store.positions(topic) == [1, 2]
