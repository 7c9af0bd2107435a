"""publish_messages_once: a repeated request stores nothing and gets its first answer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Store, wait_until_blocked

WINDOW = 3600


class Request(NamedTuple):
    key: str
    payloads: Sequence[str]
    client: str = "client"
    body: bytes = b"body"


def publish(
    store: Store,
    topic: int,
    *requests: Request,
    attributes: Sequence[str | None] | None = None,
    now: datetime | None = NOW,
) -> list[tuple[int | None, datetime]]:
    """Per request its first position and time."""
    positions, times = store.row(
        """
        select * from fastpubsub.publish_messages_once(
            %s, %s::json[], %s::jsonb[], %s::integer[], %s::text[], %s::text[], %s::bytea[], %s, 0, %s
        )
        """,
        topic,
        [payload for request in requests for payload in request.payloads],
        None if attributes is None else list(attributes),
        [len(request.payloads) for request in requests],
        [request.client for request in requests],
        [request.key for request in requests],
        [request.body for request in requests],
        WINDOW,
        now,
    )
    return list(zip(positions, times, strict=True))


def test_a_repetition_stores_nothing_and_gets_the_first_answer(store: Store) -> None:
    keys = store.create()
    request = Request("key", ["1", "2"])
    assert publish(store, keys.topic, request) == [(1, NOW)]
    store.publish(keys.topic, ["3"])
    assert publish(store, keys.topic, request, now=NOW + 10 * SECOND) == [(1, NOW)]
    assert store.claim(keys).payloads == ["1", "2", "3"]


def test_the_answer_is_the_same_when_the_clock_was_behind(store: Store) -> None:
    """The time belongs to the ids, so it is that of the messages."""
    topic = store.create_topic()
    store.publish(topic, ["1"], now=NOW + SECOND)
    (first,) = publish(store, topic, Request("key", ["2"]), now=NOW)
    assert first == (2, NOW + SECOND)
    assert publish(store, topic, Request("key", ["2"]), now=NOW + 2 * SECOND) == [first]
    assert store.value("select created_at from fastpubsub.messages where position = 2") == first[1]


def test_another_body_under_the_same_key_is_told_apart(store: Store) -> None:
    topic = store.create_topic()
    publish(store, topic, Request("key", ["1"]))
    ((position, _),) = publish(store, topic, Request("key", ["2"], body=b"other"))
    assert position is None
    assert store.positions(topic) == [1]


def test_keys_belong_to_a_client_and_a_topic(store: Store) -> None:
    topic, other = store.create_topic(), store.create_topic("other")
    publish(store, topic, Request("key", ["1"]))
    assert publish(store, topic, Request("key", ["2"], client="somebody else")) == [(2, NOW)]
    assert publish(store, other, Request("key", ["1"])) == [(1, NOW)]
    assert publish(store, topic, Request("KEY", ["3"])) == [(3, NOW)]


def test_a_key_is_new_again_after_the_window(store: Store) -> None:
    topic = store.create_topic()
    publish(store, topic, Request("key", ["1"]))
    end = NOW + timedelta(seconds=WINDOW)
    assert publish(store, topic, Request("key", ["1"]), now=end - timedelta(milliseconds=1)) == [(1, NOW)]
    assert publish(store, topic, Request("key", ["2"], body=b"other"), now=end) == [(2, end)]
    assert publish(store, topic, Request("key", ["2"], body=b"other"), now=end + SECOND) == [(2, end)]


def test_one_key_twice_in_one_call(store: Store) -> None:
    topic = store.create_topic()
    requests = [Request("a", ["1"]), Request("b", ["2", "3"]), Request("a", ["1"]), Request("b", ["4"], body=b"other")]
    assert publish(store, topic, *requests) == [(1, NOW), (2, NOW), (1, NOW), (None, NOW)]
    assert store.positions(topic) == [1, 2, 3]


def test_payloads_and_attributes_stay_aligned_around_repetitions(store: Store) -> None:
    keys = store.create()
    publish(store, keys.topic, Request("old", ["1", "2"]), attributes=['{"n": "1"}', None])
    publish(
        store,
        keys.topic,
        Request("new", ["3"]),
        Request("old", ["1", "2"]),
        Request("newer", ["4", "5"]),
        attributes=[None, '{"n": "1"}', None, '{"n": "4"}', None],
    )
    claimed = store.claim(keys)
    assert claimed.payloads == ["1", "2", "3", "4", "5"]
    assert claimed.attributes == ['{"n": "1"}', None, None, '{"n": "4"}', None]


@pytest.mark.parametrize("attributes", [None, [None] * 3])
def test_without_attributes(store: Store, attributes: list[None] | None) -> None:
    keys = store.create()
    publish(store, keys.topic, Request("a", ["1"]), Request("b", ["2", "3"]), attributes=attributes)
    claimed = store.claim(keys)
    assert (claimed.payloads, claimed.attributes) == (["1", "2", "3"], [None] * 3)


def test_a_repetition_waits_for_the_first(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    request = Request("key", ["1", "2"])
    with first.transaction():
        answer = publish(first, topic, request)
        waiting = background(publish, second, topic, request)
        wait_until_blocked(watcher, second, by=first)
    assert waiting.result() == answer
    assert watcher.positions(topic) == [1, 2]


def test_a_repetition_of_what_was_taken_back_is_the_first(open_store: OpenStore, background: Background) -> None:
    first, second, watcher = open_store(), open_store(), open_store()
    topic = watcher.create_topic()
    first.execute("begin")
    publish(first, topic, Request("key", ["1", "2"]))
    waiting = background(publish, second, topic, Request("key", ["3"], body=b"other"))
    wait_until_blocked(watcher, second, by=first)
    first.execute("rollback")
    assert waiting.result() == [(1, NOW)]
    assert watcher.positions(topic) == [1]


def test_many_at_once_store_each_request_once(open_store: OpenStore, background: Background) -> None:
    stores = [open_store() for _ in range(4)]
    topic = stores[0].create_topic()

    def send(store: Store) -> list[tuple[int | None, datetime]]:
        return [publish(store, topic, Request(str(key), ["1", "2"]))[0] for key in range(25)]

    answers = [future.result() for future in [background(send, store) for store in stores]]
    assert answers[1:] == answers[:1] * 3
    assert stores[0].positions(topic) == list(range(1, 51))


def test_a_missing_topic(store: Store) -> None:
    with store.refused("FP404"):
        publish(store, 12345, Request("key", ["1"]))


def test_nothing_is_remembered_of_what_failed(store: Store) -> None:
    topic = store.create_topic()
    with store.refused("22P02"):
        publish(store, topic, Request("key", ["{"]))
    assert publish(store, topic, Request("key", ["1"])) == [(1, NOW)]
