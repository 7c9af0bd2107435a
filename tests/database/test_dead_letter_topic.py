"""Dead letters that are published to a topic, too."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpubsub.message_ids import MessageIds
from tests.database.outbox import Relay, waiting
from tests.database.store import NOW, SECOND, SETTLED, Id, Keys, Settings, Store
from tests.database.usage import measure


@pytest.fixture
def keys(store: Store) -> Keys:
    """Of a subscription whose dead letters go to the topic `failed`, which `ops` reads."""
    store.create_topic("failed")
    store.create_subscription("ops", "failed", Settings(max_attempts=1))
    return store.create(max_attempts=1, dead_letter_topic="failed")


def ops(store: Store) -> Keys:
    return Keys(*store.row("select * from fastpubsub.resolve_subscription(%s)", "ops")[:2])


def test_each_way_to_die(store: Store, keys: Keys) -> None:
    store.publish(keys.topic, ['{"n":  1}', "2", "3"], ['{"a": "b"}', None, None], ordering_keys=["k", None, None])
    first, second, _ = store.claim(keys).ids
    store.nack(keys, [first], reason="KeyError")
    store.reject(keys, [second], ["no such customer"])
    store.release(keys, now=NOW + 60 * SECOND)
    assert Relay(store).everything() == 3
    copies = store.claim(ops(store), now=None)
    assert copies.payloads == ['{"n":  1}', "2", "3"]
    assert copies.ordering_keys == ["k", None, None]
    reasons = [
        "nacked on delivery attempt 1 of 1: KeyError",
        "no such customer",
        "lease expired on delivery attempt 1 of 1",
    ]
    assert [json.loads(one or "") for one in copies.attributes] == [
        ({"a": "b"} if position == 1 else {})
        | {
            "dead_letter_message_id": MessageIds(keys.topic, NOW).at(position),
            "dead_letter_subscription_id": "subscription",
            "dead_letter_reason": reason,
            "dead_letter_delivery_attempts": "1",
        }
        for position, reason in enumerate(reasons, 1)
    ]
    assert len(store.dead_letters(keys)) == 3, "they stay"


def test_what_does_not_die_is_not_published(store: Store, keys: Keys) -> None:
    store.update_subscription("subscription", max_delivery_attempts=2)
    store.fill(keys.topic, 3)
    claimed = store.claim(keys)
    store.ack(keys, claimed.ids[:1])
    store.nack(keys, claimed.ids[1:2])
    store.give_back(keys, [3], claimed.token)
    assert waiting(store) == 0


def test_it_is_all_or_nothing(store: Store, keys: Keys) -> None:
    store.publish(keys.topic, ["1"])
    with store.undone():
        store.reject(keys, store.claim(keys).ids)
        assert waiting(store) == 1
    assert (waiting(store), store.dead_letters(keys)) == (0, [])


def test_no_message_goes_around(store: Store, keys: Keys) -> None:
    """Both topics get the dead letters of the other."""
    store.update_subscription("ops", dead_letter_topic="topic")
    store.publish(keys.topic, ["1"])
    for name, relayed in (("subscription", 1), ("ops", 0)):
        of = Keys(*store.row("select * from fastpubsub.resolve_subscription(%s)", name)[:2])
        claimed = store.claim(of, now=None)
        assert store.reject(of, claimed.ids, now=None) == [SETTLED]
        assert Relay(store).everything() == relayed
    assert len(store.dead_letters(ops(store))) == 1
    assert store.positions(keys.topic) == [1]


def test_one_that_dies_again_is_published_again(store: Store, keys: Keys) -> None:
    store.publish(keys.topic, ["1"])
    for _ in range(2):
        store.reject(keys, store.claim(keys).ids)
        store.reprocess(keys, [Id(1, None, NOW)])
    assert Relay(store).everything() == 2


def test_a_long_reason_is_cut(store: Store, keys: Keys) -> None:
    store.publish(keys.topic, ["1"])
    store.nack(keys, store.claim(keys).ids, reason="é" * 1024)
    attributes = store.value("select attributes from fastpubsub.outbox")
    reason = json.loads(attributes)["dead_letter_reason"]
    assert (len(reason), reason.startswith("nacked on delivery attempt 1 of 1: éé")) == (1024, True)


def test_what_it_cannot_be(store: Store, keys: Keys) -> None:
    store.execute("select fastpubsub.create_topic('strict', null, '{\"type\": \"object\"}'::json)")
    for topic, sqlstate in (("nowhere", "FP404"), ("topic", "FP422"), ("strict", "FP422")):
        with store.refused(sqlstate):
            store.create_subscription("other", settings=Settings(dead_letter_topic=topic))
        with store.refused(sqlstate):
            store.update_subscription("subscription", dead_letter_topic=topic)
        with store.refused(sqlstate):
            store.fork_subscription("other", dead_letter_topic=topic)


def topic_of(store: Store, name: str) -> str | None:
    query = """
        select c.dead_letter_topic from fastpubsub.cursors as c
        join fastpubsub.subscriptions as s using (subscription_key) where s.id = %s
    """
    found: str | None = store.value(query, name)
    return found


def test_it_is_kept_forked_and_removed(store: Store, keys: Keys) -> None:
    store.update_subscription("subscription", max_delivery_attempts=7)
    store.fork_subscription("fork")
    store.fork_subscription("without", dead_letter_topic="")
    assert [topic_of(store, one) for one in ("subscription", "fork", "without")] == ["failed", "failed", None]
    store.update_subscription("subscription", dead_letter_topic="")
    assert topic_of(store, "subscription") is None
    assert topic_of(store, "fork") == "failed"
    assert store.create_subscription("empty", settings=Settings(dead_letter_topic="")).topic == keys.topic
    assert topic_of(store, "empty") is None


def test_such_a_topic_is_not_deleted(store: Store, keys: Keys) -> None:
    with store.refused("FP409"):
        store.delete_topic("failed")
    store.update_subscription("subscription", dead_letter_topic="")
    store.delete_topic("failed")
    assert store.rows("select id from fastpubsub.topics") == [("topic",)]
    assert keys.topic


def test_deleting_a_topic_does_not_look_at_every_subscription(store: Store) -> None:
    store.create_topic()
    for number in range(300):
        store.create_subscription(f"s{number}")
    # The index may still have what other tests undid, under the names of their topics.
    store.create_topic("never-named")
    _, usage = measure(store, partial(store.delete_topic, "never-named"), ["cursors"])
    assert (usage.sequential, usage.entries) == (set(), 0)


def test_a_topic_that_is_gone_stops_nobody(store: Store, keys: Keys) -> None:
    """As when it is set and deleted at the same moment."""
    topic_key = store.value("delete from fastpubsub.topics where id = 'failed' returning topic_key")
    store.execute("delete from fastpubsub.heads where topic_key = %s", topic_key)
    store.publish(keys.topic, ["1"])
    assert store.reject(keys, store.claim(keys).ids) == [SETTLED]
    assert (len(store.dead_letters(keys)), waiting(store)) == (1, 0)


def test_a_schema_that_the_topic_gets_later_is_one_that_the_relay_has_to_know(store: Store, keys: Keys) -> None:
    schema = '{"required": ["x"]}'
    store.execute("select fastpubsub.update_topic('failed', null, false, %s::json, true)", schema)
    store.publish(keys.topic, ["{}"])
    store.reject(keys, store.claim(keys).ids)
    with store.refused("FP428"):
        Relay(store).everything()


def test_without_it_dying_reads_nothing_of_it(store: Store) -> None:
    keys = store.create()
    store.publish(keys.topic, ["1"])
    claimed = store.claim(keys)
    _, usage = measure(store, partial(store.reject, keys, claimed.ids), ["outbox", "topics", "subscriptions"])
    assert usage.blocks == 0


@given(
    topic=st.integers(1, 2**32 - 1),
    position=st.integers(1, 2**42 - 1),
    milliseconds=st.integers(0, 4_000_000_000_000),
    microseconds=st.integers(0, 999),
)
def test_an_id_is_that_of_the_server(
    store: Store, topic: int, position: int, milliseconds: int, microseconds: int
) -> None:
    created_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds, microseconds=microseconds)
    written = store.value("select fastpubsub.message_id(%s, %s, %s)", topic, position, created_at)
    assert written == MessageIds(topic, created_at).at(position)
