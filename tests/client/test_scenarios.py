"""What holds for the server must hold for the bus in memory: every scenario runs on both, through the same client.

The real one is a server process over a socket. Time is passed by hand on both.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Protocol

import psycopg
import pytest

from fastpubsub.client import (
    AlreadyExists,
    Client,
    InvalidRequest,
    Message,
    NoLongerHeld,
    NotFound,
    Outgoing,
    Policy,
    Settled,
    Settlement,
    TooLarge,
    Transaction,
)
from fastpubsub.client.requests import Request
from fastpubsub.models import Redrive, Topic
from fastpubsub.testing import InMemoryBus
from tests import harness

SECONDS = 60.0


class World(Protocol):
    bus: Client

    def advance(self, seconds: float) -> None:
        """Deadlines and delays pass."""


COLUMNS_OF_TIME = (
    ("leases", "expires_at"),
    ("retries", "due_at"),
    ("delayed_messages", "due_at"),
    ("messages", "expires_at"),
    ("schedules", "next_at"),
)


class Real:
    def __init__(self, url: str, database_url: str) -> None:
        self.bus = Client(url, policy=Policy(timeout=60, attempt_timeout=60))
        self._database_url = harness.libpq(database_url)

    def advance(self, seconds: float) -> None:
        time.sleep(0.002)  # the next message is younger
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            for table, column in COLUMNS_OF_TIME:
                # Never into the past, where nobody looks any more.
                sooner = f"greatest(clock_timestamp(), {column} - make_interval(secs => %s))"
                update = f"update fastpubsub.{table} set {column} = {sooner} where {column} is not null"
                connection.execute(update.encode(), [seconds])
            deadline = time.monotonic() + SECONDS
            expired = (
                b"select 1 from fastpubsub.leases where expires_at <= clock_timestamp()"
                b" union all select 1 from fastpubsub.delayed_messages where due_at <= clock_timestamp()"
                b" union all select 1 from fastpubsub.schedules where next_at <= clock_timestamp()"
                b" union all select 1 from fastpubsub.list_full_subscriptions()"
            )
            while connection.execute(expired).fetchone():
                assert time.monotonic() < deadline
                time.sleep(0.01)


class Memory:
    def __init__(self) -> None:
        memory = InMemoryBus()
        self.bus = memory.client()
        self.advance = memory.advance


@pytest.fixture(scope="module")
def real(databases: harness.Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    database_url = databases.take()
    settings = {"database_url": database_url, "lease_expiry_interval_seconds": 0.05}
    server = harness.start_server(["server"], tmp_path_factory.mktemp("server"), settings)
    try:
        server.wait_until_ready()
        world = Real(server.base_url, database_url)
        with world.bus:
            yield world
    finally:
        server.stop()
        databases.drop(database_url)


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


INEXACT = [Decimal("1e400"), Decimal("12345678901234567.89"), Decimal("1e-400")]


def test_numbers_of_a_filter_are_exact(world: World) -> None:
    """A copy that is made of what is shown matches what the first one does."""
    scene = Scene(world, filter={"n": [*INEXACT, 1.5, 7]})
    shown = scene.bus.get_subscription(scene.name)
    assert shown.filter == {"n": [*INEXACT, 1.5, 7]}
    (listed,) = scene.bus.list_subscriptions(topic_id=scene.topic)
    assert listed.filter == shown.filter
    assert [type(one) for one in (shown.filter or {})["n"]] == [Decimal, Decimal, Decimal, float, int]
    copy = f"{scene.name}-copy"
    made = scene.bus.create_subscription(copy, scene.topic, filter=shown.filter)
    assert (made.filter, scene.bus.ensure_subscription(copy, scene.topic, filter=shown.filter).filter) == (
        shown.filter,
        shown.filter,
    )
    changed = scene.bus.update_subscription(copy, filter={"n": INEXACT[:1]})
    assert changed.filter == {"n": INEXACT[:1]}
    scene.bus.update_subscription(copy, filter=shown.filter)
    scene.publish(1, 7)
    assert len(scene.bus.pull(copy)) == 1


def test_settling_with_the_next_pull(world: World) -> None:
    scene = Scene(world, ack_deadline_seconds=30, backoff_min_seconds=60)
    scene.publish(1, 2, 3, 4, 5, 6)
    acked, nacked, returned, rejected, extended = scene.pull(5)
    settlement = Settlement().ack(acked).nack(nacked).nack(returned, undelivered=True)
    settlement.reject(rejected, reason="no").extend([extended, acked], seconds=600)
    answer = scene.bus.settle_and_pull(scene.name, settlement)
    assert [message.payload["n"] for message in answer.data] == [3, 6]
    assert [message.delivery_attempts for message in answer.data] == [1, 1]
    assert answer.acks == Settled(settled=[acked.ack_id], gone=[], stale=[])
    assert answer.nacks == Settled(settled=[nacked.ack_id, returned.ack_id], gone=[], stale=[])
    assert answer.rejects == Settled(settled=[rejected.ack_id], gone=[], stale=[])
    assert answer.leases == Settled(settled=[extended.ack_id], gone=[acked.ack_id], stale=[])
    assert [letter.reason for letter in scene.bus.list_dead_letters(scene.name)] == ["no"]
    assert scene.counts() == (1, 3, 1, 1)
    with pytest.raises(InvalidRequest):
        scene.bus.settle_and_pull(scene.name, Settlement().ack(answer.data), batch_size=101)
    assert scene.counts() == (1, 3, 1, 1)
    waited = scene.bus.settle_and_pull(scene.name, Settlement().ack(answer.data), wait_seconds=1)
    assert (waited.data, len(waited.acks.settled if waited.acks else [])) == ([], 2)


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


def test_what_was_not_looked_at_is_uncounted(world: World) -> None:
    scene = Scene(world, max_delivery_attempts=1)
    scene.publish(1, 2)
    for _ in range(3):
        one, two = scene.pull()
        assert (one.delivery_attempts, two.delivery_attempts) == (1, 1)
        assert scene.bus.nack(scene.name, [one, two], undelivered=True).settled == [one.ack_id, two.ack_id]
    with pytest.raises(InvalidRequest, match="are due at once"):
        scene.bus.nack(scene.name, scene.pull(), undelivered=True, delay_seconds=0)
    assert scene.counts() == (0, 2, 0, 0)


def test_a_consumer_that_leaves_waits_no_longer(world: World) -> None:
    scene = Scene(world)
    got: list[Any] = []
    waits = threading.Thread(target=lambda: got.append(scene.bus.pull(scene.name, wait_seconds=20, consumer_id="me")))
    waits.start()
    while waits.is_alive():
        scene.bus.end_waits(scene.name, "me")
        waits.join(0.1)
    assert got == [[]]
    with pytest.raises(NotFound):
        scene.bus.end_waits("nowhere")


def test_who_consumes(world: World) -> None:
    scene = Scene(world)
    scene.publish(1, 2, 3)
    for consumer_id, size in (("b", 1), ("a", 2)):
        scene.bus.pull(scene.name, batch_size=size, consumer_id=consumer_id)
    waits = threading.Thread(target=lambda: scene.bus.pull(scene.name, wait_seconds=20, consumer_id="b"))
    waits.start()
    while not any(one.pulls for one in scene.bus.list_consumers(scene.name)):
        pass
    a, b = scene.bus.list_consumers(scene.name)
    assert (a.consumer_id, a.leased, a.pulls, a.streams, a.waits_since) == ("a", 2, 0, 0, None)
    assert (b.consumer_id, b.leased, b.pulls, b.streams) == ("b", 1, 1, 0)
    assert a.oldest_leased_at == a.seen_at
    assert b.oldest_leased_at is not None
    assert b.waits_since is not None
    assert b.oldest_leased_at < b.waits_since <= b.seen_at
    while waits.is_alive():
        scene.bus.end_waits(scene.name, "b")
        waits.join(0.1)
    assert [one.pulls for one in scene.bus.list_consumers(scene.name)] == [0, 0]
    with pytest.raises(NotFound):
        scene.bus.list_consumers("nowhere")


def test_those_with_dead_letters(world: World) -> None:
    scene = Scene(world)
    scene.publish(1)
    assert scene.bus.list_subscriptions(topic_id=scene.topic, has_dead_letters=True) == []
    scene.bus.reject(scene.name, scene.pull())
    (found,) = scene.bus.list_subscriptions(topic_id=scene.topic, has_dead_letters=True)
    assert found.id == scene.name


def test_the_history_counts_what_happened(world: World) -> None:
    scene = Scene(world, filter={"n": [1, 2, 3, 4, 5, 6]}, ack_deadline_seconds=30, max_delivery_attempts=1)
    scene.publish(1, 2, 3, 4, 5, 6, 7)
    acked, nacked, rejected, returned, *_ = scene.pull()
    scene.bus.ack(scene.name, acked)
    scene.bus.nack(scene.name, nacked)
    scene.bus.reject(scene.name, rejected)
    scene.bus.nack(scene.name, returned, undelivered=True)
    assert scene.pull(1)[0].id == returned.id
    while sum(scene.bus.history(scene.name).expired) < 3:
        scene.advance(40)
    told = scene.bus.history(scene.name)
    expected = {"delivered": 7, "acked": 1, "nacked": 1, "rejected": 1, "expired": 3, "dead_lettered": 5, "filtered": 1}
    assert {name: sum(getattr(told, name)) for name in expected} == expected
    assert (len(told.times), told.interval_seconds, told.published) == (720, 5, [])
    assert {later - one for one, later in pairwise(told.times)} == {5}
    assert sum(scene.bus.history(topic_id=scene.topic).published) == 7
    assert sum(scene.bus.history().acked) >= 1
    assert len(scene.bus.history(scene.name, interval_seconds=60).times) == 1440
    (last,) = scene.bus.history(scene.name, start=told.times[-1], end=told.times[-1] + 5).times
    assert last == told.times[-1]
    with pytest.raises(NotFound):
        scene.bus.history(topic_id="nowhere")


def test_who_changed_what(world: World) -> None:
    scene = Scene(world)
    bus, name = scene.bus, scene.name
    scene.publish(1)
    bus.update_subscription(name, max_delivery_attempts=7)
    bus.pause(name)
    bus.resume(name)
    bus.reject(name, scene.pull(), reason="no")
    bus.reprocess_dead_letters(name, bus.list_dead_letters(name))
    bus.seek(name, "earliest")
    bus.create_redrive(name, action="purge")
    bus.purge(name)
    with pytest.raises(InvalidRequest):
        bus.update_subscription(name, backoff_min_seconds=600, backoff_max_seconds=1)
    bus.delete_subscription(name)
    changes = bus.list_changes(object="subscription", object_id=name, limit=100).data
    assert [change.action.removesuffix("_subscription") for change in changes[::-1]] == (
        ["create", "update", "pause", "resume", "reprocess_dead_letters", "seek", "create_redrive", "purge", "delete"]
    )
    assert {(change.object, change.object_id, change.client_id) for change in changes} == {
        ("subscription", name, "anonymous")
    }
    assert changes[-2].details == {"max_delivery_attempts": 7}
    assert changes[0].details is None
    first = bus.list_changes(object_id=name, limit=1)
    second = bus.list_changes(object_id=name, limit=1, page_token=first.next_page_token)
    assert [*first.data, *second.data] == changes[:2]
    assert bus.list_changes(object_id=name, after=changes[1].at, before=changes[0].at).data == changes[1:2]
    assert bus.list_changes(object_id=name, client_id="somebody").data == []
    assert [change.action for change in bus.list_changes(object="topic", object_id=scene.topic).data] == [
        "create_topic"
    ]


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


def test_dead_letters_by_reason_time_and_page(world: World) -> None:
    scene = Scene(world)
    scene.publish(1, 2, 3, 4)
    for reason in ("a", "b", "a", "a"):
        scene.bus.reject(scene.name, scene.pull(1), reason=reason)
    page = scene.bus.list_dead_letters(scene.name, reason="a", limit=2)
    assert [letter.payload["n"] for letter in page] == [1, 3]
    rest = scene.bus.list_dead_letters(scene.name, reason="a", limit=2, page_token=page.next_page_token)
    assert [letter.payload["n"] for letter in rest] == [4]
    assert rest.next_page_token is None
    _, b, a, _ = scene.bus.list_dead_letters(scene.name)
    assert scene.bus.list_dead_letters(scene.name, died_after=b.died_at, died_before=a.died_at) == [b]
    with pytest.raises(InvalidRequest, match="page_token"):
        scene.bus.list_dead_letters(scene.name, page_token="x")
    with pytest.raises(InvalidRequest, match="reason"):
        scene.bus.list_dead_letters(scene.name, reason="")


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


def test_what_became_of_a_message(world: World) -> None:
    scene = Scene(world, filter={"n": [1, 2, 3, 4]}, backoff_min_seconds=60)
    ids = scene.publish(1, 2, 3, 9, 4)
    one, two, three = scene.pull(3)
    scene.bus.ack(scene.name, one)
    scene.bus.nack(scene.name, two)
    states = [scene.bus.explain(scene.name, id_).state for id_ in ids]
    assert states == ["settled", "waiting", "leased", "filtered", "ahead"]
    assert scene.bus.explain(scene.name, ids[1]).reason == "nacked"
    leased = scene.bus.explain(scene.name, ids[2])
    assert leased.leased_at is not None
    assert leased.lease_expires_at == three.lease_expires_at
    scene.bus.reject(scene.name, three)
    assert scene.bus.explain(scene.name, three.ack_id).state == "dead"
    scene.bus.seek(scene.name, "latest")
    assert scene.bus.explain(scene.name, ids[4]).state == "skipped"
    with pytest.raises(NotFound):
        scene.bus.explain(scene.name, "00000000-0000-4000-8000-000000000000")


def test_looking_without_taking(world: World) -> None:
    scene = Scene(world, filter={"n": [1, 2, 3, 4, 5]}, backoff_min_seconds=60)
    ids = scene.publish(1, 2, 3, 9, 4, 5)
    one, two, three = scene.pull(3)
    scene.bus.nack(scene.name, two)
    scene.bus.reject(scene.name, three, reason="no")
    ahead = scene.bus.browse(scene.name)
    assert ([str(seen.id) for seen in ahead.data], ahead.next) == ([ids[4], ids[5]], None)
    assert [seen.delivery_attempts for seen in ahead.data] == [0, 0]
    (leased,) = scene.bus.browse(scene.name, "leased").data
    assert (leased.id, leased.lease_expires_at, leased.payload) == (one.id, one.lease_expires_at, {"n": 1})
    (waiting,) = scene.bus.browse(scene.name, "waiting").data
    assert (waiting.position, waiting.delivery_attempts, waiting.due_at is None) == (2, 1, False)
    assert scene.bus.browse(scene.name, "waiting", start_from=waiting.due_at).data == [waiting]
    (dead,) = scene.bus.browse(scene.name, "dead", q="payload.n=3").data
    assert (dead.reason, dead.position) == ("no", 3)
    assert scene.bus.browse(scene.name, "dead", q="payload.n=4").data == []
    assert scene.numbers() == [4, 5]


def test_a_topic_page_by_page(world: World) -> None:
    scene = Scene(world)
    ids = scene.publish(*range(1, 8))
    newest = scene.bus.browse_topic(scene.topic, limit=3)
    assert ([str(seen.id) for seen in newest.data], newest.next, newest.previous) == (ids[4:], None, 5)
    older = scene.bus.browse_topic(scene.topic, before=newest.previous, limit=3)
    assert ([seen.position for seen in older.data], older.next, older.previous) == ([2, 3, 4], 5, 2)
    assert scene.bus.browse_topic(scene.topic, start_from=older.next, limit=3).data == newest.data
    assert scene.bus.browse_topic(scene.topic, start_from=newest.data[-1]).data == newest.data[-1:]
    assert scene.bus.browse_topic(scene.topic, start_from=newest.data[0].created_at).data[-1] == newest.data[-1]
    found = scene.bus.browse_topic(scene.topic, q='"N":', limit=1)
    assert (found.data, found.looked_at) == (newest.data[-1:], 1)
    with pytest.raises(InvalidRequest):
        scene.bus.browse_topic(scene.topic, start_from="yesterday")


def wait_for(scene: Scene, redrive: Redrive) -> None:
    deadline = time.monotonic() + SECONDS
    while scene.bus.get_redrive(scene.name, redrive.id).state == "running":
        assert time.monotonic() < deadline


def test_dead_letters_that_match_go_back(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=0)
    scene.publish(1, 2, 3)
    one, two, three = scene.pull(3)
    scene.bus.reject(scene.name, [one, three], reason="no such customer")
    scene.bus.reject(scene.name, two, reason="no such product")
    reasons = [(one.reason, one.count) for one in scene.bus.list_dead_letter_reasons(scene.name)]
    assert reasons == [("no such customer", 2), ("no such product", 1)]
    begun = scene.bus.create_redrive(scene.name, reason="no such customer", per_second=10000)
    assert (begun.action, begun.matched) == ("reprocess", 2)
    wait_for(scene, begun)
    assert scene.numbers() == [1, 3]
    assert begun.filter is None
    scene.publish(4)
    scene.bus.reject(scene.name, scene.pull())
    some = scene.bus.create_redrive(scene.name, "purge", filter={"n": [4, Decimal("7.50")]})
    assert (some.matched, some.filter) == (1, {"n": [4, Decimal("7.50")]})
    wait_for(scene, some)
    assert [letter.payload["n"] for letter in scene.bus.list_dead_letters(scene.name)] == [2]
    purged = scene.bus.create_redrive(scene.name, "purge")
    wait_for(scene, purged)
    assert scene.bus.list_dead_letters(scene.name) == []
    assert [one.id for one in scene.bus.list_redrives(scene.name)] == [purged.id, some.id, begun.id]
    scene.bus.cancel_redrive(scene.name, begun.id)
    assert scene.bus.get_redrive(scene.name, begun.id).state == "done"
    with pytest.raises(NotFound):
        scene.bus.cancel_redrive(scene.name, 2**40)


def test_a_pause(world: World) -> None:
    scene = Scene(world)
    scene.publish(1, 2)
    (one,) = scene.pull(1)
    paused = scene.bus.pause(scene.name)
    assert (paused.is_paused, paused.paused_at is None) == (True, False)
    assert scene.bus.metrics(scene.name).paused
    assert scene.pull() == []
    answer = scene.bus.settle_and_pull(scene.name, Settlement().ack(one), wait_seconds=1)
    assert (answer.data, answer.paused, answer.acks and answer.acks.settled) == ([], True, [one.ack_id])
    assert scene.bus.get_subscription(scene.name).paused_at == paused.paused_at
    resumed = scene.bus.resume(scene.name)
    assert (resumed.is_paused, resumed.paused_at) == (False, None)
    assert scene.numbers() == [2]


def test_a_pull_that_waits_is_answered_when_it_is_paused(world: World) -> None:
    scene = Scene(world)
    answered = threading.Event()

    def pull() -> None:
        scene.bus.pull(scene.name, wait_seconds=20)
        answered.set()

    thread = threading.Thread(target=pull)
    thread.start()
    scene.bus.pause(scene.name)
    # It may not wait yet the first time.
    while not answered.wait(0.2):
        scene.bus.resume(scene.name)
        scene.bus.pause(scene.name)
    thread.join()


def test_a_limit_of_messages_in_flight(world: World) -> None:
    scene = Scene(world, max_in_flight=2)
    scene.publish(1, 2, 3, 4, 5)
    one, two = scene.pull(5)
    assert scene.pull() == []
    answer = scene.bus.settle_and_pull(scene.name, Settlement().ack(one))
    assert [message.payload["n"] for message in answer.data] == [3]
    assert scene.bus.metrics(scene.name).delivered == 2
    with pytest.raises(AlreadyExists, match="max_in_flight is 2, not 3"):
        scene.bus.create_subscription(scene.name, scene.topic, max_in_flight=3, exist_ok=True)
    assert scene.bus.ensure_subscription(scene.name, scene.topic, max_in_flight=3).max_in_flight == 3
    assert scene.numbers() == [4]
    assert scene.bus.update_subscription(scene.name, max_in_flight=None).max_in_flight is None
    assert scene.numbers() == [5]
    scene.bus.create_subscription(scene.name, scene.topic, max_in_flight=0, exist_ok=True)
    assert scene.bus.ensure_subscription(scene.name, scene.topic, max_in_flight=1).max_in_flight == 1
    scene.bus.ack(scene.name, two)
    assert scene.pull() == []
    for limit, has in ((None, 1), (0, None), (7, 7)):
        name = f"s-{uuid.uuid4().hex}"
        fork = scene.bus.create_subscription(name, scene.topic, fork_of=scene.name, max_in_flight=limit)
        assert fork.max_in_flight == has


def test_a_rate_limit(world: World) -> None:
    """A message in a quarter of an hour, so that no slow machine lets a second one through."""
    scene = Scene(world, rate_limit=0.001)
    scene.publish(1, 2, 3)
    assert scene.numbers() == [1]
    assert scene.pull() == []
    with pytest.raises(AlreadyExists, match=r"rate_limit is 0\.001, not 3"):
        scene.bus.create_subscription(scene.name, scene.topic, rate_limit=3, exist_ok=True)
    assert scene.bus.ensure_subscription(scene.name, scene.topic, rate_limit=2).rate_limit == 2
    assert scene.numbers() == [2, 3]
    assert scene.bus.update_subscription(scene.name, rate_limit=None).rate_limit is None
    scene.bus.create_subscription(scene.name, scene.topic, rate_limit=0, exist_ok=True)
    assert scene.bus.ensure_subscription(scene.name, scene.topic, rate_limit=1).rate_limit == 1
    for limit, has in ((None, 1), (0, None), (0.5, 0.5)):
        name = f"s-{uuid.uuid4().hex}"
        fork = scene.bus.create_subscription(name, scene.topic, fork_of=scene.name, rate_limit=limit)
        assert fork.rate_limit == has


def test_jitter_of_the_backoff(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=10_000, backoff_max_seconds=10_000, backoff_jitter=0.5)
    bus, name = scene.bus, scene.name
    assert bus.get_subscription(name).backoff_jitter == 0.5
    scene.publish(*range(100))
    bus.nack(name, scene.pull(100))
    due = [one.due_at for one in bus.browse(name, state="waiting", limit=100).data]
    assert len(due) == 100
    assert len(set(due)) > 2
    with pytest.raises(AlreadyExists, match=r"backoff_jitter is 0\.5, not 1"):
        bus.create_subscription(name, scene.topic, backoff_jitter=1, exist_ok=True)
    assert bus.ensure_subscription(name, scene.topic, backoff_jitter=1).backoff_jitter == 1
    assert bus.update_subscription(name, backoff_jitter=None).backoff_jitter is None
    bus.create_subscription(name, scene.topic, backoff_jitter=0, exist_ok=True)
    assert bus.ensure_subscription(name, scene.topic, backoff_jitter=0.25).backoff_jitter == 0.25
    for given, has in ((None, 0.25), (0, None), (0.5, 0.5)):
        fork = bus.create_subscription(f"s-{uuid.uuid4().hex}", scene.topic, fork_of=name, backoff_jitter=given)
        assert fork.backoff_jitter == has
    for wrong in (-1, 0.001, 2):
        with pytest.raises(InvalidRequest, match="backoff_jitter"):
            bus.update_subscription(name, backoff_jitter=wrong)


def test_a_topic_of_dead_letters(world: World) -> None:
    scene = Scene(world, max_delivery_attempts=1)
    failed = Scene(world)
    with pytest.raises(NotFound, match="dead_letter_topic"):
        scene.bus.update_subscription(scene.name, dead_letter_topic="nowhere")
    with pytest.raises(InvalidRequest, match="dead_letter_topic"):
        scene.bus.update_subscription(scene.name, dead_letter_topic=scene.topic)
    changed = scene.bus.update_subscription(scene.name, dead_letter_topic=failed.topic)
    assert changed.dead_letter_topic == failed.topic
    with pytest.raises(AlreadyExists, match="gets the dead letters of subscription"):
        scene.bus.delete_topic(failed.topic)
    (id_,) = scene.bus.publish(scene.topic, Outgoing({"n": 1}, attributes={"a": "b"}, ordering_key="k"))
    (message,) = scene.pull()
    scene.bus.nack(scene.name, message, reason="KeyError")
    (copy,) = scene.bus.pull(failed.name, wait_seconds=20)
    assert (copy.payload, copy.ordering_key) == ({"n": 1}, "k")
    assert copy.attributes == {
        "a": "b",
        "dead_letter_message_id": id_,
        "dead_letter_subscription_id": scene.name,
        "dead_letter_reason": "nacked on delivery attempt 1 of 1: KeyError",
        "dead_letter_delivery_attempts": "1",
    }
    back = scene.bus.update_subscription(failed.name, dead_letter_topic=scene.topic)
    assert back.dead_letter_topic == scene.topic
    scene.bus.reject(failed.name, copy)
    assert len(scene.bus.list_dead_letters(failed.name)) == 1
    assert scene.bus.ensure_subscription(failed.name, failed.topic, dead_letter_topic="").dead_letter_topic is None
    scene.publish(2)
    assert scene.numbers() == [2], "the copy did not come back"
    with pytest.raises(AlreadyExists, match="dead_letter_topic is"):
        scene.bus.create_subscription(scene.name, scene.topic, dead_letter_topic=scene.topic, exist_ok=True)
    fork = scene.bus.create_subscription(f"{scene.name}-fork", scene.topic, fork_of=scene.name)
    assert fork.dead_letter_topic == failed.topic
    scene.bus.update_subscription(fork.id, dead_letter_topic=None)
    scene.bus.update_subscription(scene.name, dead_letter_topic=None)
    scene.bus.delete_topic(failed.topic)


def test_copies_of_dead_letters_that_a_schema_refuses(world: World) -> None:
    scene = Scene(world)
    failed = Scene(world)
    bus = scene.bus
    bus.update_subscription(scene.name, dead_letter_topic=failed.topic)
    bus.update_topic(failed.topic, schema={"properties": {"n": {"maximum": 2}}})
    scene.publish(1, 5, 2, 4)
    bus.reject(scene.name, bus.pull(scene.name), reason="no")
    copies = [one for _ in range(2) for one in bus.pull(failed.name, batch_size=1, wait_seconds=20)]
    assert [one.payload for one in copies] == [{"n": 1}, {"n": 2}]
    page = bus.list_refused(failed.topic, limit=1)
    rest = bus.list_refused(failed.topic, page_token=page.next_page_token)
    first, second = page.data + rest.data
    assert ([first.payload, second.payload], rest.next_page_token) == ([{"n": 5}, {"n": 4}], None)
    reason = 'does not match the schema of its topic at "/n": the value is greater than the maximum of 2'
    assert (first.reason, first.topic_id, first.delayed_id) == (reason, failed.topic, None)
    assert (first.attributes or {})["dead_letter_reason"] == "no"
    topic = bus.get_topic(failed.topic, include_metrics=True)
    assert topic.metrics is not None
    assert topic.metrics.refused == 2
    bus.update_topic(failed.topic, schema={"properties": {"n": {"maximum": 4}}})
    assert bus.publish_refused(failed.topic, [second.id, first.id, "refused-999999"]) == [second.id]
    assert bus.pull(failed.name, wait_seconds=20)[0].payload == {"n": 4}
    (left,) = bus.list_refused(failed.topic).data
    assert (left.id, left.reason) == (first.id, reason.replace("2", "4"))
    assert bus.purge_refused(failed.topic, [first.id, second.id]) == [first.id]
    assert bus.list_refused(failed.topic).data == []
    with pytest.raises(InvalidRequest, match="`refused-` and a number"):
        bus.purge_refused(failed.topic, ["5"])


def test_failed_deliveries(world: World) -> None:
    scene = Scene(world, max_delivery_attempts=3, backoff_min_seconds=0, ack_deadline_seconds=30)
    (id_,) = scene.publish(1)
    assert scene.bus.explain(scene.name, id_).failures is None
    scene.bus.nack(scene.name, *scene.bus.pull(scene.name, consumer_id="first"), delay_seconds=0, reason="KeyError")
    scene.bus.pull(scene.name, consumer_id="second")
    scene.advance(31)
    (waiting,) = scene.bus.browse(scene.name, "waiting").data
    assert [one.cause for one in waiting.failures or ()] == ["nacked", "lease expired"]
    scene.bus.reject(scene.name, *scene.bus.pull(scene.name, consumer_id="third", wait_seconds=20), reason="no")
    (dead,) = scene.bus.list_dead_letters(scene.name)
    found = [(one.delivery_attempt, one.cause, one.reason, one.consumer_id) for one in dead.failures or ()]
    assert found == [
        (1, "nacked", "KeyError", "first"),
        (2, "lease expired", None, "second"),
        (3, "rejected", "no", "third"),
    ]
    assert [one.failures for one in scene.bus.browse(scene.name, "dead").data] == [dead.failures]
    assert scene.bus.explain(scene.name, id_).failures == dead.failures


def test_the_time_until_a_subscription_expires(world: World) -> None:
    scene = Scene(world, expire_after_seconds=3600)
    shown = scene.bus.get_subscription(scene.name)
    assert (shown.expire_after_seconds, shown.expires_at is None) == (3600, False)
    with pytest.raises(AlreadyExists, match="expire_after_seconds is 3600, not 60"):
        scene.bus.create_subscription(scene.name, scene.topic, expire_after_seconds=60, exist_ok=True)
    changed = scene.bus.ensure_subscription(scene.name, scene.topic, expire_after_seconds=86_400)
    assert changed.expires_at is not None
    assert shown.expires_at is not None
    assert changed.expires_at > shown.expires_at
    fork = scene.bus.create_subscription(f"s-{uuid.uuid4().hex}", scene.topic, fork_of=scene.name)
    assert (fork.expire_after_seconds, fork.expires_at is None) == (86_400, False)
    never = scene.bus.update_subscription(scene.name, expire_after_seconds=None)
    assert (never.expire_after_seconds, never.expires_at) == (None, None)
    scene.bus.create_subscription(scene.name, scene.topic, expire_after_seconds=0, exist_ok=True)


def test_a_purge(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=60)
    ids = scene.publish(1, 2, 3, 4)
    one, two = scene.pull(2)
    scene.bus.nack(scene.name, two)
    purged = scene.bus.purge(scene.name)
    assert (purged.purged, purged.is_estimated) == (4, False)
    assert scene.bus.ack(scene.name, one).gone == [one.ack_id]
    assert [scene.bus.explain(scene.name, id_).state for id_ in ids] == ["settled", "settled", "purged", "purged"]
    scene.publish(5)
    assert scene.numbers() == [5]


def test_trying_before_setting(world: World) -> None:
    scene = Scene(world, filter={"n": [1, 2]})
    ids = scene.publish(1, 2, 3, 4)
    scene.pull(1)
    seek = scene.bus.seek(scene.name, "earliest", dry_run=True)
    assert seek is not None
    assert (seek.ahead_now, seek.ahead_after, seek.ends_leased, seek.ends_waiting) == (1, 2, 1, 0)
    wanted = {"n": [2, 3, 4]}
    tested = scene.bus.test_filter(scene.name, wanted)
    assert (tested.looked_at, tested.passed, tested.ahead_now, tested.ahead_after) == (4, 3, 1, 3)
    assert [[str(one.id) for one in some or ()] for some in (tested.passing, tested.filtered)] == [ids[:0:-1], ids[:1]]
    assert scene.bus.test_topic_filter(scene.topic, wanted, last=2).passed == 2
    assert scene.bus.test_topic_filter(scene.topic, wanted, payload={"n": 1}).passes is False
    assert scene.bus.test_filter(scene.name, None, payload={"n": 1}).passes
    assert scene.counts() == (1, 1, 0, 0), "nothing has changed"


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


def test_a_fork_has_what_the_other_has_not_settled(world: World) -> None:
    scene = Scene(world, filter={"n": [1, 2, 4]}, ack_deadline_seconds=50)
    for number in (1, 2, 3, 4):
        scene.publish(number)
    one, _ = scene.bus.pull(scene.name, batch_size=2)
    scene.bus.ack(scene.name, [one])
    scene.bus.pause(scene.name)
    name = f"s-{uuid.uuid4().hex}"
    fork = scene.bus.create_subscription(name, scene.topic, fork_of=scene.name, max_delivery_attempts=9)
    original = scene.bus.resume(scene.name)
    changed = {"id": name, "max_delivery_attempts": 9, "created_at": fork.created_at}
    assert fork == original.model_copy(update=changed)
    assert [message.payload["n"] for message in scene.bus.pull(name)] == [2, 4]
    assert scene.bus.create_subscription(name, scene.topic, fork_of=scene.name, exist_ok=True) == fork
    assert scene.bus.ensure_subscription(name, scene.topic, fork_of=scene.name) == fork
    everything = scene.bus.create_subscription(f"{name}-all", scene.topic, fork_of=name, filter={})
    assert [message.payload["n"] for message in scene.bus.pull(everything.id)] == [2, 3, 4]


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
        (NotFound, 'topic "x" does not exist', lambda: bus.create_subscription("x", "x", fork_of=scene.name)),
        (NotFound, 'subscription "x"', lambda: bus.create_subscription("x", scene.topic, fork_of="x")),
        (
            InvalidRequest,
            "either start_from or fork_of",
            lambda: bus.create_subscription("x", scene.topic, fork_of=scene.name, start_from="latest"),
        ),
        (NotFound, 'topic "nowhere" does not exist', lambda: bus.publish("nowhere", {})),
        (NotFound, 'subscription "nowhere" does not exist', lambda: bus.pull("nowhere")),
        (NotFound, 'subscription "nowhere" does not exist', lambda: bus.ack("nowhere", [])),
        (NotFound, "does not exist", lambda: bus.delete_subscription("nowhere")),
        (InvalidRequest, "body.id", lambda: bus.create_topic("a b")),
        (InvalidRequest, "backoff_max_seconds", lambda: bus.update_subscription(scene.name, backoff_max_seconds=1)),
        (InvalidRequest, "filter", lambda: bus.update_subscription(scene.name, filter={"a": []})),
        (InvalidRequest, "body.filter", lambda: bus.update_subscription(scene.name, filter={"a": [[1]]})),
        (InvalidRequest, "not JSON", lambda: bus.publish(scene.topic, {"n": float("nan")})),
        (InvalidRequest, "message 1 is not a JSON object", lambda: bus.publish(scene.topic, {}, [])),
        (InvalidRequest, "neither a message id", lambda: bus.ack(scene.name, "x")),
        (InvalidRequest, "is not a message of the topic", lambda: bus.seek(scene.name, uuid.uuid4())),
        (InvalidRequest, "query.limit", lambda: bus.list_topics(limit=101)),
        (InvalidRequest, "query.batch_size", lambda: bus.pull(scene.name, batch_size=0)),
        (InvalidRequest, "body.extend_seconds", lambda: bus.extend(scene.name, [], seconds=0)),
        (TooLarge, "than the 1000 of one publish", lambda: bus.publish(scene.topic, *({} for _ in range(1001)))),
        (TooLarge, "than the 1000 of one request", lambda: bus.ack(scene.name, ["x"] * 1001)),
    ]
    for kind, sentence, call in refused:
        with pytest.raises(kind, match=sentence):
            call()
    assert scene.counts() == (0, 0, 0, 0)
    assert bus.publish(scene.topic) == []


def test_messages_that_come_later(world: World) -> None:
    scene = Scene(world)
    bus = world.bus
    soon, now = bus.publish(scene.topic, Outgoing({"n": 1}, {"a": "b"}, delay_seconds=60), {"n": 2})
    moved, cancelled = bus.publish(scene.topic, {"n": 3}, {"n": 4}, delay_seconds=120)
    assert [message.payload["n"] for message in bus.pull(scene.name)] == [2]
    waiting = bus.get_delayed(scene.topic, soon)
    assert (waiting.state, waiting.payload, waiting.attributes) == ("waiting", {"n": 1}, {"a": "b"})
    assert [one.id for one in bus.list_delayed(scene.topic).data] == [soon, moved, cancelled]
    page = bus.list_delayed(scene.topic, limit=2)
    rest = bus.list_delayed(scene.topic, limit=2, page_token=page.next_page_token)
    assert ([one.id for one in rest.data], rest.next_page_token) == ([cancelled], None)
    assert bus.list_delayed(scene.topic, state="held").data == []
    assert bus.release_delayed(scene.topic) == 0
    bus.cancel_delayed(scene.topic, cancelled)
    assert bus.move_delayed(scene.topic, moved, delay_seconds=30).deliver_at < waiting.deliver_at
    world.advance(61)
    later = {message.payload["n"]: message for message in bus.pull(scene.name)}
    assert later.keys() == {1, 3}
    found = bus.get_delayed(scene.topic, soon)
    assert (found.state, found.message_id, found.payload) == ("published", str(later[1].id), None)
    with pytest.raises(NotFound, match="cancelled"):
        bus.get_delayed(scene.topic, cancelled)
    for call in (
        lambda: bus.cancel_delayed(scene.topic, soon),
        lambda: bus.move_delayed(scene.topic, soon, delay_seconds=1),
    ):
        with pytest.raises(AlreadyExists, match="published already"):
            call()
    with pytest.raises(InvalidRequest, match="`delayed-` and a number"):
        bus.get_delayed(scene.topic, now)
    with pytest.raises(InvalidRequest, match="one of them"):
        bus.publish(scene.topic, Outgoing({}, deliver_at=found.deliver_at, delay_seconds=1))


def test_messages_that_expire(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=0)
    bus = world.bus
    past = datetime(2020, 1, 31, tzinfo=UTC)
    bus.publish(scene.topic, {"n": 1}, {"n": 2}, Outgoing({"n": 3}, expires_at=past), ttl_seconds=60)
    one, two = scene.pull()
    assert [one.payload, two.payload] == [{"n": 1}, {"n": 2}]
    assert bus.metrics(scene.name).ttl_expired == 1
    bus.publish(scene.topic, {"n": 4}, expires_at=past)
    scene.publish(5)
    (later,) = bus.publish(scene.topic, {"n": 6}, delay_seconds=600, ttl_seconds=5)
    assert bus.get_delayed(scene.topic, later).ttl_seconds == 5
    assert [one.ttl_seconds for one in bus.list_delayed(scene.topic).data] == [5]
    scene.advance(61)
    bus.nack(scene.name, [one, two], delay_seconds=0)
    scene.advance(1)
    assert scene.numbers() == [5]
    assert (scene.counts(), bus.metrics(scene.name).ttl_expired) == ((0, 1, 0, 0), 4)
    seen = bus.browse_topic(scene.topic).data
    assert [message.expires_at is not None for message in seen] == [True, True, True, True, False]


def test_expired_messages_that_become_dead_letters(world: World) -> None:
    scene = Scene(world, on_expired="dead_letter", ordered=True)
    bus = world.bus
    past = datetime(2020, 1, 31, tzinfo=UTC)
    expired = Outgoing({"n": 1}, ordering_key="k", expires_at=past)
    (id_, _) = bus.publish(scene.topic, expired, Outgoing({"n": 2}, ordering_key="k"))
    assert scene.numbers() == [2]
    (letter,) = bus.list_dead_letters(scene.name)
    assert (str(letter.id), letter.reason, letter.delivery_attempts) == (id_, "expired", 0)
    assert scene.counts() == (0, 1, 0, 1)
    assert bus.metrics(scene.name).ttl_expired is None
    bus.reprocess_dead_letters(scene.name, letter)
    scene.advance(1)
    assert scene.numbers() == [1]
    with pytest.raises(AlreadyExists, match='on_expired is "dead_letter", not "drop"'):
        bus.create_subscription(scene.name, scene.topic, ordered=True, on_expired="drop", exist_ok=True)
    assert bus.ensure_subscription(scene.name, scene.topic, ordered=True, on_expired="drop").on_expired == "drop"
    assert bus.update_subscription(scene.name, on_expired="dead_letter").on_expired == "dead_letter"
    fork = bus.create_subscription(f"{scene.name}-fork", scene.topic, fork_of=scene.name)
    assert fork.on_expired == "dead_letter"
    for wrong in ({"ttl_seconds": 0}, {"ttl_seconds": 1, "expires_at": past}):
        with pytest.raises(InvalidRequest):
            bus.publish(scene.topic, {}, **wrong)


def test_dead_letters_that_hold_their_keys(world: World) -> None:
    scene = Scene(world, ordered=True, on_dead_letter="hold")
    bus = world.bus
    ids = bus.publish(scene.topic, *(Outgoing({"n": n}, ordering_key="k") for n in (1, 2, 3)))
    (first,) = scene.pull(1)
    bus.reject(scene.name, first)
    assert (scene.numbers(), bus.metrics(scene.name).held_keys) == ([], 1)
    assert [str(bus.explain(scene.name, id_).held_by) for id_ in ids] == [ids[0]] * 3
    bus.reprocess_dead_letters(scene.name, ids[0])
    scene.advance(1)
    one, *others = scene.pull()
    assert (one.payload, [other.payload for other in others]) == ({"n": 1}, [{"n": 2}, {"n": 3}])
    bus.reject(scene.name, one)
    assert scene.numbers() == []
    bus.purge_dead_letters(scene.name, ids[0])
    scene.advance(1)
    assert (scene.numbers(), bus.metrics(scene.name).held_keys) == ([2, 3], None)
    assert bus.update_subscription(scene.name, on_dead_letter="continue").on_dead_letter == "continue"
    fork = bus.create_subscription(f"{scene.name}-fork", scene.topic, fork_of=scene.name, on_dead_letter="hold")
    assert fork.on_dead_letter == "hold"
    with pytest.raises(InvalidRequest, match="needs a subscription with ordered: true"):
        bus.create_subscription(f"{scene.name}-x", scene.topic, on_dead_letter="hold")


def test_keys_that_wait_share(world: World) -> None:
    scene = Scene(world, fair_by="ordering_key")
    bus = world.bus
    bus.publish(scene.topic, *(Outgoing({"n": n}, ordering_key="much") for n in range(20)))
    bus.publish(scene.topic, *(Outgoing({"n": n}, ordering_key="little") for n in (20, 21)))
    assert [sorted(scene.numbers(4)) for _ in range(2)] == [[0, 1, 20, 21], [2, 3, 4, 5]]
    assert bus.metrics(scene.name).available == 14
    assert len(scene.numbers()) == 14
    assert bus.get_subscription(scene.name).fair_by == "ordering_key"
    with pytest.raises(AlreadyExists, match='fair_by is "ordering_key", not ""'):
        bus.ensure_subscription(scene.name, scene.topic, fair_by="")
    fork = bus.create_subscription(f"{scene.name}-fork", scene.topic, fork_of=scene.name, fair_by="")
    assert fork.fair_by is None
    for wrong in ({"ordered": True}, {"on_full": "drop_oldest"}):
        with pytest.raises(InvalidRequest, match="fair_by"):
            bus.create_subscription(f"{scene.name}-x", scene.topic, fair_by="ordering_key", **wrong)


def test_a_backlog_that_is_too_long(world: World) -> None:
    scene = Scene(world, max_backlog=2, on_full="drop_oldest", filter={"n": [1, 2, 4, 5]})
    bus = world.bus
    scene.publish(1, 2, 3, 4, 5)
    scene.advance(1)
    assert scene.numbers() == [4, 5]
    found = bus.metrics(scene.name)
    assert (found.available, found.delivered, found.acked, found.dropped, found.filtered) == (0, 2, 0, 2, 1)
    with pytest.raises(AlreadyExists, match='on_full is "drop_oldest", not "reject"'):
        bus.create_subscription(scene.name, scene.topic, on_full="reject", exist_ok=True)
    fork = bus.create_subscription(f"{scene.name}-fork", scene.topic, fork_of=scene.name, max_backlog=0)
    assert (fork.max_backlog, fork.on_full) == (None, "drop_oldest")
    changed = bus.ensure_subscription(scene.name, scene.topic, on_full="dead_letter")
    assert (changed.max_backlog, changed.on_full) == (2, "dead_letter")
    scene.publish(1, 2, 3, 4, 5)
    scene.advance(1)
    letters = bus.list_dead_letters(scene.name)
    assert [(one.payload["n"], one.reason, one.delivery_attempts) for one in letters] == [
        (1, "backlog full", 0),
        (2, "backlog full", 0),
    ]
    assert scene.counts() == (2, 2, 0, 2)
    assert bus.update_subscription(scene.name, max_backlog=None).max_backlog is None
    for ordered in (True, False):
        with pytest.raises(InvalidRequest if ordered else AlreadyExists):
            bus.create_subscription(
                f"{scene.name}-o" if ordered else scene.name, scene.topic, ordered=ordered, on_full="drop_oldest"
            )


def test_what_a_schema_refuses(world: World) -> None:
    """The client has no schemas yet, so the request is made by hand."""
    scene = Scene(world)

    def schema(value: str) -> Request[Topic]:
        return Request("PATCH", f"/topics/{scene.topic}", Topic.model_validate_json, f'{{"schema":{value}}}'.encode())

    with pytest.raises(InvalidRequest):
        world.bus.send(schema('{"type": 7}'))
    world.bus.send(schema('{"required": ["n"]}'))
    with pytest.raises(InvalidRequest, match="message 1 does not match the schema"):
        world.bus.publish(scene.topic, {"n": 1}, {})
    assert scene.counts() == (0, 0, 0, 0)
    world.bus.send(schema("null"))
    world.bus.publish(scene.topic, {})
    assert scene.counts()[0] == 1


def test_what_else_is_refused(world: World) -> None:
    scene = Scene(world)
    for call in (
        lambda: world.bus.pull(scene.name, wait_seconds=21),
        lambda: world.bus.publish(scene.topic, {}, idempotency_key="x" * 256),
        lambda: world.bus.publish(scene.topic, {}, idempotency_key=""),
    ):
        with pytest.raises(InvalidRequest):
            call()
    assert scene.counts() == (0, 0, 0, 0)


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
    assert [subscription.id for subscription in bus.list_subscriptions(topic_id=scene.topic)] == [scene.name]
    assert bus.list_subscriptions(topic_id=f"not-{scene.topic}") == []
    bus.delete_topic(scene.topic)
    for gone in (bus.get_subscription, bus.metrics):
        with pytest.raises(NotFound):
            gone(scene.name)


def test_transactions(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=60)
    scene.bus.create_topic(f"{scene.name}-next", exist_ok=True)
    scene.bus.create_subscription(f"{scene.name}-next", f"{scene.name}-next")
    scene.publish(1, 2, 3, 4)
    acked, nacked, rejected, kept = scene.pull(4)
    transaction = Transaction().ack(scene.name, acked).nack(scene.name, nacked, delay_seconds=5)
    transaction.reject(scene.name, [rejected], reason="no")
    transaction.publish(f"{scene.name}-next", {"of": 1}, Outgoing({"of": 2}, {"a": "b"}), ordering_key="k")
    scene.bus.transact(transaction)
    assert scene.counts() == (1, 1, 1, 1)
    found: list[Message] = []
    while len(found) < 2:
        found += scene.bus.pull(f"{scene.name}-next", wait_seconds=20)
    assert [(one.payload, one.attributes, one.ordering_key) for one in found] == [
        ({"of": 1}, None, "k"),
        ({"of": 2}, {"a": "b"}, "k"),
    ]
    with pytest.raises(NoLongerHeld):
        scene.bus.transact(Transaction().ack(scene.name, [acked, kept]))
    with pytest.raises(InvalidRequest):
        scene.bus.transact(Transaction())
    with pytest.raises(ValueError, match="by ack ids"):
        Transaction().ack(scene.name, str(kept.id))
    with pytest.raises(NotFound):
        scene.bus.transact(Transaction().ack(scene.name, kept).publish("nowhere", {}))
    assert scene.counts() == (1, 1, 1, 1)


def test_a_nack_with_a_reason(world: World) -> None:
    scene = Scene(world, backoff_min_seconds=60, max_delivery_attempts=1)
    scene.bus.update_subscription(scene.name, max_delivery_attempts=2)
    scene.publish(1, 2, 3)
    first, second, third = scene.pull(3)
    scene.bus.nack(scene.name, first, reason=OSError("the disk is full"), delay_seconds=0)
    scene.bus.settle_and_pull(scene.name, Settlement().nack(second, reason="x" * 2000).nack(third), batch_size=1)
    assert scene.bus.explain(scene.name, second).reason == "nacked: " + "x" * 1024
    assert scene.bus.explain(scene.name, third).reason == "nacked"
    assert [one.id for one in scene.bus.browse(scene.name, "leased").data] == [first.id]


def test_a_schedule(world: World) -> None:
    scene = Scene(world)
    bus, topic = scene.bus, scene.topic
    created = bus.create_schedule(
        topic, "tick", {"n": 1}, interval_seconds=3600, attributes={"a": "b"}, ordering_key="k", catch_up="all"
    )
    assert (created.id, created.topic_id, created.fired, created.catch_up) == ("tick", topic, 0, "all")
    assert created.upcoming is not None
    assert created.next_at == created.upcoming[0]
    assert [(later - one).total_seconds() for one, later in pairwise(created.upcoming)] == [3600] * 4
    assert scene.pull() == []
    scene.advance(3600)
    (message,) = scene.pull()
    assert (message.payload, message.ordering_key) == ({"n": 1}, "k")
    assert message.attributes is not None
    assert message.attributes.keys() == {"a", "schedule_id", "scheduled_at"}
    fired = bus.get_schedule(topic, "tick")
    assert (fired.fired, fired.missed, fired.last_message_id) == (1, 0, str(message.id))
    assert fired.last_fired_at == message.created_at
    by_hand = bus.fire_schedule(topic, "tick")
    (message,) = scene.pull()
    assert (by_hand.fired, by_hand.next_at, by_hand.last_message_id) == (2, fired.next_at, str(message.id))


def test_a_schedule_is_kept_changed_and_paused(world: World) -> None:
    scene = Scene(world)
    bus, topic = scene.bus, scene.topic
    created = bus.create_schedule(topic, "b", cron="0 9 * * MON", time_zone="Europe/Berlin")
    assert bus.create_schedule(topic, "b", cron="0 9 * * MON", exist_ok=True) == created
    with pytest.raises(AlreadyExists, match="cron is"):
        bus.create_schedule(topic, "b", cron="0 8 * * *", exist_ok=True)
    with pytest.raises(AlreadyExists, match="already exists"):
        bus.create_schedule(topic, "b", cron="0 8 * * *")
    bus.create_schedule(topic, "a", interval_seconds=60)
    page = bus.list_schedules(topic, limit=1)
    rest = bus.list_schedules(topic, page_token=page.next_page_token)
    assert [(one.id, one.upcoming) for one in [*page, *rest]] == [("a", None), ("b", None)]
    changed = bus.update_schedule(topic, "b", payload={"n": 2}, attributes={"a": "b"})
    assert (changed.payload, changed.next_at, changed.time_zone) == ({"n": 2}, created.next_at, "Europe/Berlin")
    assert bus.update_schedule(topic, "b", interval_seconds=60, attributes=None).cron is None
    with pytest.raises(InvalidRequest, match="has an interval"):
        bus.update_schedule(topic, "b", time_zone="UTC")
    paused = bus.pause_schedule(topic, "b")
    assert (paused.is_paused, paused.next_at, paused.upcoming) == (True, None, None)
    assert bus.update_schedule(topic, "b", cron="* * * * *").next_at is None
    resumed = bus.resume_schedule(topic, "b")
    assert (resumed.is_paused, resumed.paused_at, resumed.time_zone) == (False, None, "UTC")
    assert resumed.next_at is not None
    bus.delete_schedule(topic, "b")
    with pytest.raises(NotFound, match='no schedule "b"'):
        bus.get_schedule(topic, "b")
    with pytest.raises(NotFound, match='no schedule "b"'):
        bus.fire_schedule(topic, "b")


def test_a_schedule_obeys_the_schema(world: World) -> None:
    scene = Scene(world)
    scene.bus.update_topic(scene.topic, schema={"required": ["n"]})
    with pytest.raises(InvalidRequest, match="does not match the schema"):
        scene.bus.create_schedule(scene.topic, "tick", interval_seconds=60)
    scene.bus.create_schedule(scene.topic, "tick", {"n": 1}, interval_seconds=60)
    scene.bus.update_topic(scene.topic, schema={"required": ["m"]})
    scene.advance(60)
    found = scene.bus.get_schedule(scene.topic, "tick")
    assert (found.fired, found.missed) == (0, 1)
    assert "does not match the schema" in (found.problem or "")
    scene.bus.update_schedule(scene.topic, "tick", payload={"m": 1})
    scene.advance(60)
    found = scene.bus.get_schedule(scene.topic, "tick")
    assert (found.fired, found.missed, found.problem) == (1, 1, None)


REFUSED_SCHEDULES: list[dict[str, Any]] = [
    {},
    {"cron": "* * * * *", "interval_seconds": 5},
    {"cron": "@daily"},
    {"cron": "0 0 31 2 *"},
    {"cron": "* * * * *", "time_zone": "Mars"},
    {"interval_seconds": 0},
    {"interval_seconds": 5, "attributes": {"schedule_id": "mine"}},
    {"interval_seconds": 5, "ordering_key": ""},
]


def test_schedules_that_are_refused(world: World) -> None:
    scene = Scene(world)
    for wrong in REFUSED_SCHEDULES:
        with pytest.raises(InvalidRequest):
            scene.bus.create_schedule(scene.topic, "tick", **wrong)
    with pytest.raises(NotFound):
        scene.bus.create_schedule("nowhere", "tick", interval_seconds=5)
    assert scene.bus.list_schedules(scene.topic) == []
