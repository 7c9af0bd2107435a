"""What does not match the schema of its topic is kept apart, once, and nothing waits for it."""

import json
from datetime import timedelta

import pytest

from tests.database import delayed, refused
from tests.database.conftest import OpenStore
from tests.database.outbox import Relay, publish, waiting
from tests.database.store import NOW, Store
from tests.database.test_topic_schemas import CHANGE, SCHEMA, version

BAD = 'does not match the schema of its topic at "/n": the value is not a number'


@pytest.fixture
def topic(store: Store) -> int:
    topic = store.create_topic()
    store.execute(CHANGE, SCHEMA)
    return topic


def payloads(store: Store, topic: int) -> list[str]:
    query = "select payload::text from fastpubsub.messages where topic_key = %s order by position"
    return [payload for (payload,) in store.rows(query, topic)]


def test_a_misfit_keeps_all_that_it_had_and_those_after_it_arrive(store: Store, topic: int) -> None:
    for n in range(3):
        store.execute("select fastpubsub.publish('topic', %s, '{\"a\": \"b\"}', 'key', null, 60)", json.dumps({"n": n}))
    rows = [(*row[:2], BAD if place == 1 else None) for place, row in enumerate(refused.rows(store, topic))]
    assert refused.move(store, topic, rows, version(store)) == ("topic", 2, 0, 1)
    assert payloads(store, topic) == ['{"n": 0}', '{"n": 2}']
    (one,) = refused.listed(store, topic)
    assert one[2:10] == (BAD, '{"n": 1}', '{"a": "b"}', "key", None, None, 60, None)
    assert waiting(store) == 0
    assert refused.count(store) == [("topic", 1)]
    assert refused.count(store, topics=["topic", "other"]) == [("topic", 1)]
    assert refused.count(store, topics=["other"]) == []


def test_what_was_checked_by_another_schema_stays_in_the_outbox(store: Store, topic: int) -> None:
    publish(store, "{}")
    for stale in (0, version(store) + 1):
        with store.refused("FP428"):
            refused.move(store, topic, refused.rows(store, topic, BAD), stale)
    with store.refused("FP428"):
        store.row("select * from fastpubsub.relay_messages(%s, array[1], array[1])", topic)
    assert (waiting(store), refused.listed(store, topic)) == (1, [])
    assert refused.refuse_all(store, topic, BAD, version(store)) == 1


def test_a_topic_that_is_deleted_takes_what_was_refused_with_it(store: Store, topic: int) -> None:
    publish(store, "{}")
    refused.refuse_all(store, topic, BAD, version(store))
    publish(store, "{}")
    rows = refused.rows(store, topic, BAD)
    store.delete_topic()
    assert refused.move(store, topic, rows, 5) == (None, 0, 1, 0)
    assert refused.count(store) == []
    while store.empty_purges() is not None:
        pass
    assert store.value("select count(*) from fastpubsub.refused_messages") == 0


def test_published_again_it_is_a_row_of_the_outbox_as_before(store: Store, topic: int) -> None:
    due = NOW + timedelta(days=9)
    later = store.value("select fastpubsub.publish('topic', '{\"n\": 1}', null, 'key', %s)", due)
    publish(store, '{"n": 2}', '{"a": "b"}')
    assert refused.refuse_all(store, topic, BAD, version(store)) == 2
    first, second = refused.listed(store, topic)
    assert (first.deliver_at, f"delayed-{first.delayed_key}") == (due, later)
    with store.refused("FP428"):
        refused.publish(store, topic, first.key)
    reasons = [None, "another reason"]
    assert refused.publish(store, topic, first.key, second.key, reasons=reasons, schema_version=version(store)) == [
        first.key
    ]
    (left,) = refused.listed(store, topic)
    assert left == second._replace(reason="another reason", looked_at=1)
    store.execute(CHANGE, None)
    assert refused.publish(store, topic, first.key, second.key, second.key, 10**17) == [second.key]
    assert Relay(store).everything() == 1
    assert payloads(store, topic) == ['{"n": 2}']
    assert [one.payload for one in delayed.listed(store, topic)] == ['{"n": 1}']
    assert refused.listed(store, topic) == []


def test_pages_are_bounded_by_rows_and_bytes(store: Store, topic: int) -> None:
    for n in range(4):
        publish(store, json.dumps({"n": n, "x": "x" * 1000}))
    refused.refuse_all(store, topic, BAD, version(store))
    keys = [one.key for one in refused.listed(store, topic)]
    assert [one.key for one in refused.listed(store, topic, keys[0], 2)] == keys[1:3]
    page = refused.listed(store, topic, max_bytes=1100)
    assert ([one.key for one in page], page[0].looked_at) == (keys[:2], 4)
    assert [one.key for one in refused.listed(store, topic, max_bytes=1)] == keys[:1]
    assert [one.key for one in refused.listed(store, topic, keys=[keys[3], keys[1], keys[1], 10**17])] == keys[1::2]


def test_purged_and_trimmed(store: Store, topic: int) -> None:
    for _ in range(3):
        publish(store, "{}")
    refused.refuse_all(store, topic, BAD, version(store))
    keys = [one.key for one in refused.listed(store, topic)]
    assert refused.purge(store, topic, keys[0], keys[0], 10**17) == keys[:1]
    assert refused.trim(store, 60) == 0
    assert refused.trim(store, 60, refused.listed(store, topic)[0].refused_at + timedelta(seconds=61)) == 2
    for call in (refused.purge, refused.publish):
        with store.refused("FP404"):
            call(store, 10**9, 1)
    with store.refused("FP404"):
        refused.listed(store, 10**9)


def test_two_relays_and_a_kill_refuse_and_move_each_once(open_store: OpenStore) -> None:
    """A transaction that does not end well has done nothing; whoever comes second finds the rows gone."""
    store, other = open_store(), open_store()
    topic = store.create_topic()
    store.execute(CHANGE, SCHEMA)
    for n in range(4):
        publish(store, json.dumps({"n": n}))
    rows = [(*row[:2], BAD if place % 2 else None) for place, row in enumerate(refused.rows(store, topic))]
    with store.undone():
        assert refused.move(store, topic, rows, version(store)) == ("topic", 2, 0, 2)
        assert refused.move(other, topic, rows, version(other)) == (None, None, None, None)
    assert (waiting(other), refused.listed(other, topic), payloads(other, topic)) == (4, [], [])
    assert refused.move(other, topic, rows, version(other)) == ("topic", 2, 0, 2)
    assert refused.move(store, topic, rows, version(store)) == ("topic", 0, 0, 0)
    assert payloads(store, topic) == ['{"n": 0}', '{"n": 2}']
    assert [one.payload for one in refused.listed(store, topic)] == ['{"n": 1}', '{"n": 3}']


def test_payloads_are_read_in_their_places(store: Store, topic: int) -> None:
    for n in range(3):
        publish(store, json.dumps({"n": n}))
    rows = refused.rows(store, topic)
    columns = [row[0] for row in rows], [row[1] for row in rows]
    refused.move(store, topic, [(*rows[1][:2], BAD)], version(store))
    query = "select fastpubsub.read_outbox(%s, %s::bigint[], %s::bigint[])::text[]"
    assert store.value(query, topic, *columns) == ['{"n": 0}', "null", '{"n": 2}']
    assert store.value(query, topic + 1, *columns) == ["null"] * 3
