"""publish_to_topics: what publish_messages does, for several topics; what it cannot do at once it leaves out."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate

import pytest

from tests.database.conftest import Background, OpenStore
from tests.database.store import NOW, SECOND, Published, Store, wait_until_blocked


def publish(
    store: Store,
    payloads: Mapping[int, Sequence[str]],
    attributes: Sequence[str | None] | None = None,
    schema_versions: Sequence[int] | None = None,
    now: datetime | None = NOW,
) -> list[Published | None]:
    counts = [len(some) for some in payloads.values()]
    positions, times = store.row(
        "select * from fastpubsub.publish_to_topics(%s, %s, %s::int[], %s::int[], %s::json[], %s::jsonb[], %s)",
        list(payloads),
        [0] * len(payloads) if schema_versions is None else list(schema_versions),
        list(accumulate(counts[:-1], initial=0)),
        [place for place, count in enumerate(counts, 1) for _ in range(count)],
        [payload for some in payloads.values() for payload in some],
        None if attributes is None else list(attributes),
        now,
    )
    return [
        None if position is None else Published(position, time) for position, time in zip(positions, times, strict=True)
    ]


@pytest.fixture
def topics(store: Store) -> list[int]:
    return [store.create_topic(name) for name in ("a", "b", "c")]


def test_each_topic_goes_on_where_it_was(store: Store, topics: list[int]) -> None:
    first, second, third = topics
    store.publish(second, ["0", "0"], now=NOW + SECOND)
    answers = publish(store, {first: ["1", "2"], second: ["3"], third: ["4", "5", "6"]})
    assert answers == [Published(1, NOW), Published(3, NOW + SECOND), Published(1, NOW)]
    query = "select topic_key, position, payload::text from fastpubsub.messages order by topic_key, position"
    assert store.rows(query) == [
        *((first, position, text) for position, text in enumerate("12", 1)),
        *((second, position, text) for position, text in enumerate("003", 1)),
        *((third, position, text) for position, text in enumerate("456", 1)),
    ]


def test_attributes_and_whole_milliseconds(store: Store, topics: list[int]) -> None:
    first, second, _ = topics
    time = NOW + timedelta(microseconds=1999)
    answers = publish(store, {first: ["1", "2"], second: ["3"]}, [None, '{"k": "v"}', '{"k": "w"}'], now=time)
    assert answers == [Published(1, NOW + timedelta(milliseconds=1))] * 2
    query = "select array_agg(attributes ->> 'k' order by topic_key, position) from fastpubsub.messages"
    assert store.value(query) == [None, "v", "w"]


def test_a_missing_topic_and_another_schema_are_left_out(store: Store, topics: list[int]) -> None:
    first, second, third = topics
    answers = publish(store, {first: ["1"], 12345: ["2"], second: ["3"], third: ["4"]}, schema_versions=[0, 0, 7, 0])
    assert answers == [Published(1, NOW), None, None, Published(1, NOW)]
    assert [store.positions(topic) for topic in (*topics, 12345)] == [[1], [], [1], []]


def test_all_left_out(store: Store) -> None:
    assert publish(store, {1: ["1"], 2: ["2"]}) == [None, None]


def test_nothing_is_stored_when_one_payload_is_no_json(store: Store, topics: list[int]) -> None:
    with store.refused("22P02"):
        publish(store, {topics[0]: ["1"], topics[1]: ["{"]})
    assert store.positions(topics[0]) == []


def test_waits_for_no_topic_that_another_publishes_to(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    busy, free = store.create_topic("busy"), store.create_topic("free")
    other.execute("begin")
    other.publish(busy, ["1"])
    assert publish(store, {busy: ["2"], free: ["3"]}) == [None, Published(1, NOW)]
    other.execute("commit")
    assert publish(store, {busy: ["2"], free: ["3"]}) == [Published(2, NOW), Published(2, NOW)]


def test_no_position_is_seen_before_those_below_it(open_store: OpenStore, background: Background) -> None:
    """Who publishes next waits until what was published together is visible."""
    store, other, watcher = open_store(), open_store(), open_store()
    first, second = store.create_topic("a"), store.create_topic("b")
    store.execute("begin")
    publish(store, {first: ["1"], second: ["1"]})
    waiting = background(other.publish, second, ["2"])
    wait_until_blocked(watcher, other, by=store)
    store.execute("commit")
    assert waiting.result().first_position == 2
