"""The ordering key of a message: whatever publishes it stores it, and whatever shows the message has it."""

import pytest

from tests.database.conftest import OpenStore
from tests.database.outbox import Relay
from tests.database.store import Store


def test_it_travels_with_the_message(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.publish(keys.topic, ["1", "2", "3"], ordering_keys=["a", None, "b"])
    claimed = store.claim(keys)
    assert claimed.ordering_keys == ["a", None, "b"]
    assert [one.ordering_key for one in store.browse(keys, "leased").seen] == ["a", None, "b"]
    store.nack(keys, claimed.ids)
    assert [letter.ordering_key for letter in store.dead_letters(keys)] == ["a", None, "b"]
    assert [one.ordering_key for one in store.browse(keys, "dead").seen] == ["a", None, "b"]
    store.reprocess(keys, claimed.ids[:2])
    store.publish(keys.topic, ["4", "5"])
    again = store.claim(keys)
    assert again.payloads == ["1", "2", "4", "5"]
    assert again.ordering_keys == ["a", None, None, None]


def test_a_revived_message_has_it_when_the_log_does_not(store: Store) -> None:
    keys = store.create(max_attempts=1)
    store.publish(keys.topic, ["1", "2"], ordering_keys=["a", None])
    claimed = store.claim(keys)
    store.nack(keys, claimed.ids[:1])
    store.ack(keys, claimed.ids[1:])
    store.reprocess(keys, claimed.ids[:1])
    store.execute("delete from fastpubsub.messages where position = 1")
    assert [one.ordering_key for one in store.browse(keys, "waiting").seen] == ["a"]
    assert store.claim(keys).ordering_keys == ["a"]


def test_messages_without_one_say_nothing(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1", "2"])
    assert store.claim(keys).ordering_keys is None
    row = store.row("select ordering_keys from fastpubsub.read_messages_2(%s, 0, 10, 1000)", keys.topic)
    assert row == (None,)


def test_with_a_filter(store: Store) -> None:
    keys = store.create(filter='{"n": [2, 3]}')
    store.publish(keys.topic, ['{"n": 1}', '{"n": 2}', '{"n": 3}'], ordering_keys=["a", "b", None])
    assert store.claim(keys).ordering_keys == ["b", None]


def test_with_an_idempotency_key(store: Store) -> None:
    keys = store.create()
    query = """
        select first_positions from fastpubsub.publish_messages_once(
            %s, %s::json[], null, %s::integer[], array['c', 'c'], %s, array['h', 'h']::bytea[], 3600, 0, null,
            %s::text[]
        )
    """
    first = store.value(query, keys.topic, ["1", "2", "3"], [1, 2], ["k", "l"], ["a", None, "b"])
    again = store.value(query, keys.topic, ["2", "3", "4"], [2, 1], ["l", "m"], [None, "b", "c"])
    assert (first, again) == ([1, 2], [2, 4])
    stored = store.rows("select payload::text, ordering_key from fastpubsub.messages order by position")
    assert stored == [("1", "a"), ("2", None), ("3", "b"), ("4", "c")]


def test_to_several_topics(store: Store) -> None:
    topics = [store.create_topic(name) for name in ("a", "b")]
    query = """
        select fastpubsub.publish_to_topics(
            %s, array[0, 0]::bigint[], array[0, 2], array[1, 1, 2], array['1', '2', '3']::json[], null, null,
            array['x', null, 'y']
        )
    """
    store.value(query, topics)
    stored = store.rows("select payload::text, ordering_key from fastpubsub.messages order by topic_key, position")
    assert stored == [("1", "x"), ("2", None), ("3", "y")]


def test_from_a_transaction_of_an_application(open_store: OpenStore) -> None:
    store = open_store()
    keys = store.create()
    with store.transaction():
        store.execute("""select fastpubsub.publish('topic', '{"n": 1}', ordering_key => 'a')""")
        store.execute("""select fastpubsub.publish('topic', '{"n": 2}', null, 'a')""")
        store.execute("""select fastpubsub.publish('topic', '{"n": 3}')""")
    assert Relay(store).everything() == 3
    claimed = store.claim(keys, now=None)
    assert claimed.payloads == ['{"n": 1}', '{"n": 2}', '{"n": 3}']
    assert claimed.ordering_keys == ["a", "a", None]


@pytest.mark.parametrize("key", ["", "x" * 129])
def test_its_length(store: Store, key: str) -> None:
    store.create()
    with store.refused("FP422"):
        store.execute("select fastpubsub.publish('topic', '{}', null, %s)", key)
    store.execute("select fastpubsub.publish('topic', '{}', null, %s)", "é" * 128)
