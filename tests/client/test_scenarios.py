"""What holds for the server must hold for the bus in memory: every scenario runs on both, through the same client.

The real one is a server process over a socket. Time is passed by hand on both.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg
import pytest

from fastpubsub.client import (
    AlreadyExists,
    Client,
    InvalidRequest,
    Message,
    NotFound,
    Outgoing,
    Policy,
    TooLarge,
)
from fastpubsub.testing import InMemoryBus
from tests import harness

SECONDS = 30.0


class World(Protocol):
    bus: Client

    def advance(self, seconds: float) -> None:
        """Deadlines and delays pass."""


class Real:
    def __init__(self, url: str, database_url: str) -> None:
        self.bus = Client(url, policy=Policy(timeout=60, attempt_timeout=60))
        self._database_url = harness.libpq(database_url)

    def advance(self, seconds: float) -> None:
        time.sleep(0.002)  # the next message is younger
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            for table, column in (("leases", "expires_at"), ("retries", "due_at")):
                # Never into the past, where nobody looks any more.
                sooner = f"greatest(clock_timestamp(), {column} - make_interval(secs => %s))"
                connection.execute(f"update fastpubsub.{table} set {column} = {sooner}".encode(), [seconds])
            deadline = time.monotonic() + SECONDS
            expired = b"select 1 from fastpubsub.leases where expires_at <= clock_timestamp()"
            while connection.execute(expired).fetchone():
                assert time.monotonic() < deadline
                time.sleep(0.01)


class Memory:
    def __init__(self) -> None:
        memory = InMemoryBus()
        self.bus = memory.client()
        self.advance = memory.advance


@pytest.fixture(scope="module")
def real(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    database_url = harness.clone(template_url, f"{harness.PREFIX}_{uuid.uuid4().hex[:12]}")
    settings = {"database_url": database_url, "lease_expiry_interval_seconds": 0.05}
    server = harness.start_server(["server"], tmp_path_factory.mktemp("server"), settings)
    try:
        server.wait_until_ready()
        world = Real(server.base_url, database_url)
        with world.bus:
            yield world
    finally:
        server.stop()
        harness.drop(database_url)


@pytest.fixture(params=["server", "memory"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.getfixturevalue("real") if request.param == "server" else Memory()
    return made


class Scene:
    """A topic and a subscription of its own, with short calls."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.bus = world.bus
        self.advance = world.advance
        self.topic = f"t-{uuid.uuid4().hex}"
        self.name = f"s-{uuid.uuid4().hex}"
        self.bus.create_topic(self.topic)
        self.bus.create_subscription(self.name, self.topic, **settings)

    def publish(self, *numbers: int) -> list[str]:
        return self.bus.publish(self.topic, *({"n": n} for n in numbers))

    def pull(self, batch_size: int = 100) -> list[Message]:
        return self.bus.pull(self.name, batch_size=batch_size)

    def numbers(self, batch_size: int = 100) -> list[int]:
        return [message.payload["n"] for message in self.pull(batch_size)]

    def counts(self) -> tuple[int, int, int, int]:
        """Available, delivered, acked and dead."""
        found = self.bus.metrics(self.name)
        return found.available, found.delivered, found.acked, found.dlq


def test_publish_pull_and_ack(world: World) -> None:
    scene = Scene(world)
    ids = scene.publish(1, 2, 3)
    assert scene.counts() == (3, 0, 0, 0)
    first, second = scene.pull(2)
    assert [str(first.id), str(second.id)] == ids[:2]
    assert (first.payload, first.delivery_attempts, first.subscription_id) == ({"n": 1}, 1, scene.name)
    assert first.attributes is None
    assert (first.lease_expires_at - first.created_at).total_seconds() == pytest.approx(60, abs=10)
    assert scene.counts() == (1, 2, 0, 0)
    assert scene.bus.ack(scene.name, [first, second]).settled == [first.ack_id, second.ack_id]
    assert scene.bus.ack(scene.name, first).gone == [first.ack_id]
    assert scene.numbers() == [3]
    assert scene.pull() == []
    assert scene.counts() == (0, 1, 2, 0)


def test_every_subscription_gets_every_message(world: World) -> None:
    scene = Scene(world)
    other = f"{scene.name}-other"
    scene.bus.create_subscription(other, scene.topic)
    scene.publish(1)
    (one,), (two,) = scene.pull(), scene.bus.pull(other)
    assert one.id == two.id
    assert scene.bus.ack(other, one).stale == [one.ack_id]
    scene.bus.ack(scene.name, str(one.id))
    assert scene.bus.metrics(other).delivered == 1


def test_a_message_is_with_one_consumer_until_its_deadline(world: World) -> None:
    scene = Scene(world, ack_deadline_seconds=30, backoff_min_seconds=0, backoff_max_seconds=0)
    scene.publish(1)
    (first,) = scene.pull()
    scene.advance(20)
    assert scene.pull() == []
    assert scene.bus.extend(scene.name, first, seconds=60) == [first.ack_id]
    scene.advance(40)
    assert scene.pull() == []
    scene.advance(30)
    (second,) = scene.pull()
    assert (second.id, second.delivery_attempts) == (first.id, 2)
    assert second.ack_id != first.ack_id
    assert scene.bus.ack(scene.name, first).stale == [first.ack_id]
    assert scene.bus.extend(scene.name, first, seconds=60) == []
    assert scene.bus.ack(scene.name, str(second.id)).settled == [str(second.id)]
    assert scene.counts() == (0, 0, 1, 0)


def test_backoff_doubles_up_to_its_end(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=60, backoff_max_seconds=200, max_delivery_attempts=9)
    scene.publish(1)
    for wait in (60, 120, 200, 200):
        scene.bus.nack(scene.name, scene.pull())
        assert scene.counts() == (1, 0, 0, 0)
        scene.advance(wait - 30)
        assert scene.pull() == []
        scene.advance(31)
    (message,) = scene.pull()
    assert message.delivery_attempts == 5


def test_a_delay_of_ones_own(world: World) -> None:
    scene = Scene(world)
    scene.publish(1, 2)
    one, two = scene.pull()
    scene.bus.nack(scene.name, one, delay_seconds=600)
    scene.bus.nack(scene.name, two, delay_seconds=0)
    assert scene.numbers() == [2]
    scene.advance(601)
    assert 1 in scene.numbers()


def test_what_waited_comes_first(world: World) -> None:
    scene = Scene(world)
    scene.publish(1, 2, 3)
    scene.bus.nack(scene.name, scene.pull(2), delay_seconds=0)
    assert scene.numbers() == [1, 2, 3]


def test_the_last_attempt(world: World) -> None:
    scene = Scene(world, max_delivery_attempts=2, backoff_min_seconds=0, backoff_max_seconds=0)
    scene.publish(1, 2)
    scene.bus.nack(scene.name, scene.pull())
    one, _ = scene.pull()
    scene.bus.nack(scene.name, one)
    scene.advance(61)
    letters = scene.bus.list_dead_letters(scene.name)
    assert [(letter.payload["n"], letter.delivery_attempts, letter.reason) for letter in letters] == [
        (1, 2, "nacked on delivery attempt 2 of 2"),
        (2, 2, "lease expired on delivery attempt 2 of 2"),
    ]
    assert scene.pull() == []
    assert scene.counts() == (0, 0, 0, 2)


def test_dead_letters_come_back_or_go(world: World) -> None:
    scene = Scene(world)
    ids = scene.publish(1, 2, 3)
    assert scene.bus.reject(scene.name, scene.pull(), reason="because").settled
    first, *_ = scene.bus.list_dead_letters(scene.name, limit=2)
    assert (str(first.id), first.reason, first.delivery_attempts) == (ids[0], "because", 1)
    assert [letter.payload["n"] for letter in scene.bus.list_dead_letters(scene.name, offset=1, limit=1)] == [2]
    assert scene.bus.reprocess_dead_letters(scene.name, [ids[0], ids[0]]) == [ids[0], ids[0]]
    assert scene.bus.reprocess_dead_letters(scene.name, ids[0]) == []
    (again,) = scene.pull()
    assert (str(again.id), again.delivery_attempts) == (ids[0], 1)
    assert scene.bus.purge_dead_letters(scene.name, ids) == ids[1:]
    scene.bus.ack(scene.name, again)
    assert scene.counts() == (0, 0, 1, 0)


def test_a_reprocessed_message_dies_again(world: World) -> None:
    scene = Scene(world)
    ids = scene.publish(1)
    scene.bus.reject(scene.name, scene.pull())
    scene.bus.reprocess_dead_letters(scene.name, ids)
    scene.bus.reject(scene.name, scene.pull(), reason="again")
    assert [letter.reason for letter in scene.bus.list_dead_letters(scene.name)] == ["again"]
    assert scene.counts() == (0, 0, 0, 1)


FILTERED: list[dict[str, Any]] = [
    {"country": "BR", "total": 10},
    {"country": "BR", "total": 10.0},
    {"country": "BR", "total": "10"},
    {"country": "BR"},
    {"country": ["BR"], "total": 10},
    {"country": "JP", "total": 10},
    {"country": "US", "total": 20.5, "more": {"x": 1}},
    {"country": None, "total": 10},
    {"country": True, "total": 10},
]


def test_filters(world: World) -> None:
    scene = Scene(world, filter={"country": ["BR", "US"], "total": [10, 20.5]})
    scene.bus.publish(scene.topic, *FILTERED)
    assert scene.counts()[0] == 3
    assert [message.payload for message in scene.pull()] == [FILTERED[0], FILTERED[1], FILTERED[6]]


def test_a_filter_can_be_changed(world: World) -> None:
    scene = Scene(world, filter={"n": [1]})
    scene.publish(1, 2, 1)
    assert scene.numbers(1) == [1]
    changed = scene.bus.update_subscription(scene.name, filter={"n": [2, True]})
    assert changed.filter == {"n": [2, True]}
    assert scene.numbers() == [2]
    scene.bus.publish(scene.topic, {"n": True}, {"n": 1})
    assert [message.payload["n"] for message in scene.pull()] == [True]
    assert scene.bus.update_subscription(scene.name, filter=None).filter is None
    scene.publish(7)
    assert scene.numbers() == [7]


def test_seeking(world: World) -> None:
    scene = Scene(world)
    scene.publish(1)
    scene.advance(1)
    ids = scene.publish(2)
    scene.advance(1)
    scene.publish(3)
    one, two, three = scene.pull()
    scene.bus.ack(scene.name, one)
    scene.bus.reject(scene.name, three)
    scene.bus.seek(scene.name, "earliest")
    assert scene.bus.ack(scene.name, two).gone == [two.ack_id]
    assert scene.numbers() == [1, 2, 3]
    scene.bus.seek(scene.name, two)
    assert scene.numbers() == [2, 3]
    scene.bus.seek(scene.name, three.created_at)
    assert scene.numbers() == [3]
    scene.bus.seek(scene.name, ids[0])
    assert scene.numbers(1) == [2]
    scene.bus.seek(scene.name, "latest")
    assert scene.pull() == []
    assert scene.counts()[3] == 1


def test_seeking_and_dead_letters(world: World) -> None:
    scene = Scene(world)
    ids = scene.publish(1, 2)
    scene.bus.reject(scene.name, scene.pull())
    scene.bus.reprocess_dead_letters(scene.name, ids[0])
    scene.bus.seek(scene.name, "earliest")
    assert scene.counts() == (2, 0, 0, 2)
    assert scene.bus.reprocess_dead_letters(scene.name, ids) == ids
    assert scene.counts() == (2, 0, 0, 0)
    assert scene.numbers() == [1, 2]


def test_where_a_subscription_starts(world: World) -> None:
    scene = Scene(world)
    scene.publish(1)
    scene.advance(1)
    scene.publish(2)
    second = scene.pull()[1]
    for start, expected in (("earliest", [1, 2]), ("latest", []), (second.created_at, [2])):
        name = f"s-{uuid.uuid4().hex}"
        scene.bus.create_subscription(name, scene.topic, start_from=start)  # type: ignore[arg-type]
        assert [message.payload["n"] for message in scene.bus.pull(name)] == expected


def test_payloads_and_attributes_come_back_as_they_were(world: World) -> None:
    scene = Scene(world)
    payload = {"text": 'žluťoučký 🐎 "\\', "big": 18446744073709551617, "deep": [{"a": None}], "f": 1e-7}
    scene.bus.publish(scene.topic, Outgoing(payload, {"ключ": "значение"}), {})
    one, two = scene.pull()
    assert (one.payload, one.attributes) == (payload, {"ключ": "значение"})
    assert (two.payload, two.attributes) == ({}, None)
    scene.bus.reject(scene.name, one)
    assert scene.bus.list_dead_letters(scene.name)[0].attributes == {"ключ": "значение"}


def test_a_key_makes_repeating_safe(world: World) -> None:
    scene = Scene(world)
    first = scene.bus.publish(scene.topic, {"n": 1}, idempotency_key="key")
    assert scene.bus.publish(scene.topic, {"n": 1}, idempotency_key="key") == first
    with pytest.raises(InvalidRequest, match="Idempotency-Key was used with another body"):
        scene.bus.publish(scene.topic, {"n": 2}, idempotency_key="key")
    assert scene.numbers() == [1]


def test_what_is_refused(world: World) -> None:
    scene = Scene(world)
    bus = world.bus
    refused: list[tuple[type[Exception], str, Any]] = [
        (AlreadyExists, "already exists", lambda: bus.create_topic(scene.topic)),
        (AlreadyExists, "already exists", lambda: bus.create_subscription(scene.name, scene.topic)),
        (NotFound, 'topic "nowhere" does not exist', lambda: bus.create_subscription("x", "nowhere")),
        (NotFound, 'topic "nowhere" does not exist', lambda: bus.publish("nowhere", {})),
        (NotFound, 'subscription "nowhere" does not exist', lambda: bus.pull("nowhere")),
        (NotFound, 'subscription "nowhere" does not exist', lambda: bus.ack("nowhere", [])),
        (NotFound, "does not exist", lambda: bus.delete_subscription("nowhere")),
        (InvalidRequest, "body.id", lambda: bus.create_topic("a b")),
        (InvalidRequest, "backoff_max_seconds", lambda: bus.update_subscription(scene.name, backoff_max_seconds=1)),
        (InvalidRequest, "filter", lambda: bus.update_subscription(scene.name, filter={"a": []})),
        (InvalidRequest, "body.filter", lambda: bus.update_subscription(scene.name, filter={"a": [None]})),
        (InvalidRequest, "not JSON", lambda: bus.publish(scene.topic, {"n": float("nan")})),
        (InvalidRequest, "message 1 is not a JSON object", lambda: bus.publish(scene.topic, {}, [])),
        (InvalidRequest, "neither a message id", lambda: bus.ack(scene.name, "x")),
        (InvalidRequest, "is no message of the topic", lambda: bus.seek(scene.name, uuid.uuid4())),
        (InvalidRequest, "query.limit", lambda: bus.list_topics(limit=101)),
        (InvalidRequest, "query.batch_size", lambda: bus.pull(scene.name, batch_size=0)),
        (InvalidRequest, "body.extend_seconds", lambda: bus.extend(scene.name, [], seconds=0)),
        (TooLarge, "1001 messages", lambda: bus.publish(scene.topic, *({} for _ in range(1001)))),
        (TooLarge, "1001 ids", lambda: bus.ack(scene.name, ["x"] * 1001)),
    ]
    for kind, sentence, call in refused:
        with pytest.raises(kind, match=sentence):
            call()
    assert scene.counts() == (0, 0, 0, 0)
    assert bus.publish(scene.topic) == []


def test_topics_and_subscriptions(world: World) -> None:
    scene = Scene(world, max_delivery_attempts=3)
    bus = world.bus
    assert bus.create_topic(scene.topic, exist_ok=True) == bus.get_topic(scene.topic)
    assert bus.update_topic(scene.topic, retention_seconds=60).retention_seconds == 60
    assert scene.topic in [topic.id for topic in bus.list_topics(limit=100)]
    found = bus.get_subscription(scene.name)
    assert (found.topic_id, found.max_delivery_attempts, found.ack_deadline_seconds) == (scene.topic, 3, 60)
    assert (found.backoff_min_seconds, found.backoff_max_seconds, found.filter) == (5, 300, None)
    changed = bus.update_subscription(scene.name, backoff_min_seconds=0, ack_deadline_seconds=7)
    assert bus.get_subscription(scene.name) == changed
    assert scene.name in [subscription.id for subscription in bus.list_subscriptions(limit=100)]
    bus.delete_topic(scene.topic)
    for gone in (bus.get_subscription, bus.metrics):
        with pytest.raises(NotFound):
            gone(scene.name)
