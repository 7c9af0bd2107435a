"""The relay of a server: who looks how often, and what happens when something fails."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database import nodes
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import OutcomeUnknown, Unavailable
from fastpubsub.message_ids import MessageIds, ack_id
from fastpubsub.payload_schemas import PayloadSchema
from fastpubsub.services import relay as module
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.relay import Relay
from fastpubsub.services.turn import Turn

Connect = Callable[[], Awaitable[psycopg.AsyncConnection]]
SECONDS = 60.0


@pytest.fixture
async def application(connect: Connect) -> psycopg.AsyncConnection:
    return await connect()


async def publish(connection: psycopg.AsyncConnection, count: int, topic: str = "t", first: int = 0) -> None:
    """In one transaction."""
    await connection.execute(
        "select fastpubsub.publish(%s, json_build_object('n', i)) from generate_series(%s::int, %s::int) as i",
        (topic, first, first + count - 1),
    )


async def stored(connection: psycopg.AsyncConnection, topic: str = "t") -> list[int]:
    cursor = await connection.execute(
        "select (payload ->> 'n')::int from fastpubsub.messages"
        " join fastpubsub.topics using (topic_key) where id = %s order by position",
        [topic],
    )
    return [number for (number,) in await cursor.fetchall()]


ONE_NODE = b"select 'node', coalesce(array_agg(t.topic_key), '{}') from fastpubsub.topics as t"


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics may be on other nodes than the outbox, as far as anybody asks."""
    monkeypatch.setattr(nodes, "TOPICS_BY_NODE", (b"select true", ONE_NODE))


@pytest.fixture(params=["one node", "several"])
def wherever(request: pytest.FixtureRequest) -> None:
    if request.param == "several":
        request.getfixturevalue("several")


class Failing(Database):
    """Fails the calls of a topic, as if it was locked for too long."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.topic_key: int | None = None
        self.error: Exception = Unavailable("it is locked")

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        if procedure == "relay_messages_2" and arguments[0] == self.topic_key:
            raise self.error
        return await super().fetch_all(procedure, *arguments)


@pytest.fixture
async def failing(settings: Settings) -> AsyncIterator[Failing]:
    opened = Failing(settings)
    yield opened
    await opened.close()


@pytest.mark.usefixtures("wherever")
async def test_messages_are_moved_counted_and_announced(
    database: Database,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    registry: CollectorRegistry,
    application: Any,
) -> None:
    topic_key, _ = await database.fetch_one("create_topic", "t")
    announced: list[tuple[int, int]] = []
    relay = Relay(database, settings, counters, turn, lambda *told: announced.append(told))
    assert await relay.step() == settings.outbox_poll_interval_seconds
    await publish(application, 3)
    await relay.step()
    assert await stored(application) == [0, 1, 2]
    assert announced == [(topic_key, 3)]
    assert registry.get_sample_value("fastpubsub_messages_published_total", {"topic": "t"}) == 3


@pytest.mark.usefixtures("wherever")
async def test_what_was_there_before_the_start_is_moved(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any
) -> None:
    await database.fetch_one("create_topic", "t")
    await publish(application, 3)
    await Relay(database, settings, counters, turn).step()
    assert await stored(application) == [0, 1, 2]


@pytest.mark.usefixtures("wherever")
async def test_what_was_published_to_a_deleted_topic_is_counted(
    database: Database,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    registry: CollectorRegistry,
    application: Any,
) -> None:
    await database.fetch_one("create_topic", "t")
    await publish(application, 3)
    await database.fetch_one("delete_topic", "t")
    await Relay(database, settings, counters, turn).step()
    assert registry.get_sample_value("fastpubsub_outbox_dropped_total") == 3


async def test_looking_while_another_moves_keeps_the_place(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any, connect: Connect
) -> None:
    await database.fetch_one("create_topic", "t")
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    busy = await connect()
    await publish(application, 2)
    async with busy.transaction():
        await busy.execute("select from fastpubsub.jobs where name = 'relay_messages' for update")
        assert await relay.step() > 0
        await publish(application, 1, first=2)
        await relay.step()
        assert await stored(application) == []
    await relay.step()
    await relay.step()
    assert sorted(await stored(application)) == [0, 1, 2]


@pytest.mark.usefixtures("wherever")
async def test_new_messages_do_not_wait_behind_many(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any
) -> None:
    for topic in ("many", "few"):
        await database.fetch_one("create_topic", topic)
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    rows = 5 * module._CHUNK_ROWS
    await publish(application, rows, "many")
    assert await relay.step() == 0
    await publish(application, 1, "few")
    await relay.step()
    assert await stored(application, "few") == [0]
    assert len(await stored(application, "many")) < rows
    while await relay.step() == 0:
        pass
    assert await stored(application, "many") == list(range(rows))


@pytest.mark.parametrize("error", [Unavailable("it is locked"), RuntimeError("a defect")])
async def test_a_topic_that_fails_does_not_stop_the_others_and_keeps_its_order(
    failing: Failing,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    application: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(module, "_RESCAN_AFTER_TROUBLE_SECONDS", 3600.0)
    failing.topic_key, _ = await failing.fetch_one("create_topic", "bad")
    failing.error = error
    await failing.fetch_one("create_topic", "good")
    relay = Relay(failing, settings, counters, turn)
    await relay.step()
    for topic in ("bad", "good"):
        await publish(application, 2 * module._CHUNK_ROWS, topic)
    while await relay.step() == 0:
        pass
    assert await stored(application, "bad") == []
    assert await stored(application, "good") == list(range(2 * module._CHUNK_ROWS))
    assert ("Traceback" in caplog.text) == isinstance(error, RuntimeError)
    failing.topic_key = None
    await publish(application, 1, "bad", 2 * module._CHUNK_ROWS)
    await relay.step()
    assert await stored(application, "bad") == []
    relay._rescan_at = 0.0
    while await relay.step() == 0:
        pass
    assert await stored(application, "bad") == list(range(2 * module._CHUNK_ROWS + 1))


@pytest.mark.usefixtures("wherever")
async def test_the_net_finds_what_was_listed_and_then_lost(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any
) -> None:
    await database.fetch_one("create_topic", "t")
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    await publish(application, 1)
    _, relay._seen, *_ = await relay._list(module._Stretch(None), limit=0)
    await relay.step()
    assert await stored(application) == []
    relay._rescan_at = 0.0
    await relay.step()
    assert await stored(application) == [0]


async def test_trouble_ends_nothing(
    settings: Settings,
    counters: Counters,
    turn: Turn,
    application: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(module, "_TROUBLE_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_RESCAN_AFTER_TROUBLE_SECONDS", 0.01)
    caplog.set_level(logging.WARNING)
    database = Database(settings)
    await database.fetch_one("create_topic", "t")
    relay = Relay(database, settings, counters, turn)
    task = asyncio.create_task(relay.run())
    try:
        async with asyncio.timeout(SECONDS):
            await publish(application, 1)
            while await stored(application) != [0]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
            while "waits for the database" not in caplog.text:
                await application.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            await publish(application, 1, first=1)
            while await stored(application) != [0, 1]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.wait({task})
        await database.close()
    assert "Traceback" not in caplog.text


SCHEMA = '{"properties": {"n": {"maximum": %s}}}'


class Crashing(Database):
    """The node of the outbox crashes after so many calls that move its rows."""

    after = 100

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        if "outbox" in procedure and procedure != "list_outbox":
            if self.after == 0:
                raise OutcomeUnknown("the connection was lost")
            self.after -= 1
        return await super().fetch_all(procedure, *arguments)


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("after", range(4))
async def test_a_crash_between_two_nodes_publishes_nothing_twice(
    settings: Settings, counters: Counters, turn: Turn, application: Any, after: int
) -> None:
    """After copying, publishing, deleting, and before the keys are forgotten; then with more rows than before."""
    database = Crashing(settings)
    topic_key, _ = await database.fetch_one("create_topic", "t")
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    await publish(application, 3)
    database.after = after
    await relay.step()
    left = await waiting(application)
    assert left == (3 if after < 3 else 0)
    assert await stored(application) == ([0, 1, 2] if after > 1 else [])
    await publish(application, 2, first=3)
    database.after = 100
    relay._rescan_at = 0.0
    await relay.step()
    await relay.step()
    assert (await stored(application), await waiting(application)) == ([0, 1, 2, 3, 4], 0)
    cursor = await application.execute(
        "select count(*) from fastpubsub.idempotency_keys where topic_key = %s", [topic_key]
    )
    assert await cursor.fetchone() == (3 if after == 3 else 0,)
    await database.close()


@pytest.mark.usefixtures("several")
async def test_everything_of_a_message_reaches_the_other_node(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any
) -> None:
    await database.fetch_one("create_topic", "t")
    publishing = (
        """select fastpubsub.publish('t', '{"n": 1}', '{"a": "b"}', 'key', null, 60)""",
        """select fastpubsub.publish('t', '{"n": 2}', null, null, now() + '1 hour', null, now() + '2 hours')""",
        """select fastpubsub.publish('t', '{"n": 3}')""",
    )
    for statement in publishing:
        await application.execute(statement)
    await Relay(database, settings, counters, turn).step()
    cursor = await application.execute(
        "select payload::text, attributes->>'a', ordering_key, extract(epoch from expires_at - created_at)::int"
        " from fastpubsub.messages order by position"
    )
    assert await cursor.fetchall() == [('{"n": 1}', "b", "key", 60), ('{"n": 3}', None, None, None)]
    cursor = await application.execute(
        "select payload::text, expires_at - due_at = interval '1 hour' from fastpubsub.delayed_messages"
    )
    assert await cursor.fetchall() == [('{"n": 2}', True)]
    cursor = await application.execute("select count(*) from fastpubsub.message_keys")
    assert await cursor.fetchone() == (1,)


async def waiting(connection: psycopg.AsyncConnection) -> int:
    """Rows in the outbox."""
    cursor = await connection.execute("select count(*) from fastpubsub.outbox")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def set_schema(database: Database, maximum: int | None, topic: str = "t") -> None:
    schema = None if maximum is None else SCHEMA % maximum
    await database.fetch_one("update_topic", topic, None, False, schema, True)


async def refused(connection: psycopg.AsyncConnection) -> list[int]:
    query = "select (payload ->> 'n')::int from fastpubsub.refused_messages order by refused_key"
    return [number for (number,) in await (await connection.execute(query)).fetchall()]


class Counting(Database):
    """The procedures that were called."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.called: list[str] = []

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        self.called.append(procedure)
        return await super().fetch_all(procedure, *arguments)


async def test_what_does_not_match_is_refused_counted_and_told(
    settings: Settings,
    counters: Counters,
    turn: Turn,
    registry: CollectorRegistry,
    application: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = Counting(settings)
    try:
        await database.fetch_one("create_topic", "t")
        announced: list[tuple[int, int]] = []
        relay = Relay(database, settings, counters, turn, lambda *told: announced.append(told))
        await relay.step()
        database.called.clear()
        await publish(application, 2)
        await relay.step()
        assert database.called == ["list_outbox", "relay_messages_2"]
        await set_schema(database, 3)
        await publish(application, 4, first=2)
        await relay.step()
        assert await stored(application) == [0, 1, 2, 3]
        assert await refused(application) == [4, 5]
        assert [count for _, count in announced] == [2, 2]
        assert registry.get_sample_value("fastpubsub_messages_refused_total", {"topic": "t"}) == 2
        assert registry.get_sample_value("fastpubsub_messages_published_total", {"topic": "t"}) == 4
        assert "topic_id=t refused=2" in caplog.text
    finally:
        await database.close()


@pytest.mark.usefixtures("wherever")
async def test_the_schema_of_the_moment_counts(
    database: Database, settings: Settings, counters: Counters, turn: Turn, application: Any
) -> None:
    """Changed, taken away, given back, and of a topic that was made anew."""
    await database.fetch_one("create_topic", "t")
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    for maximum in (3, 1, None, 2):
        await publish(application, 5)
        await set_schema(database, maximum)
        await relay.step()
    assert await stored(application) == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 0, 1, 2]
    assert await refused(application) == [4, 2, 3, 4, 3, 4]
    await publish(application, 5)
    await database.fetch_one("delete_topic", "t")
    await relay.step()
    await database.fetch_one("create_topic", "t")
    await publish(application, 5)
    await relay.step()
    assert await stored(application) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("wherever")
async def test_what_takes_long_to_check_is_moved_in_parts_and_in_order(
    database: Database,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    application: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for topic in ("t", "other"):
        await database.fetch_one("create_topic", topic)
    await set_schema(database, 1000)
    relay = Relay(database, settings, counters, turn)
    await relay.step()
    judge = PayloadSchema.misfits
    monkeypatch.setattr(PayloadSchema, "misfits", lambda schema, payloads: judge(schema, payloads, 500))
    rows = 30
    await publish(application, rows)
    await relay.step()
    assert 0 < len(await stored(application)) < rows
    await publish(application, 1, "other")
    await relay.step()
    assert await stored(application, "other") == [0]
    while len(await stored(application)) < rows:
        await relay.step()
    assert await stored(application) == list(range(rows))
    assert await refused(application) == []


async def test_what_sql_settles_is_counted_and_told(
    database: Database,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    registry: CollectorRegistry,
    application: Any,
) -> None:
    await database.fetch_one("create_topic", "t")
    topic_key, subscription_key, _ = await database.fetch_one("create_subscription", "s", "t", None, 60, 5, 1, 10)
    told: list[SubscriptionKey] = []
    relay = Relay(database, settings, counters, turn, on_settled=told.append)
    await publish(application, 3)
    await relay.step()
    ids = await pulled_ids(application, topic_key, subscription_key)
    async with application.transaction():
        await application.execute("select fastpubsub.ack('s', %s)", (ids[:2],))
        await application.execute("select fastpubsub.reject('s', %s)", (ids[2:],))
    await relay.step()
    assert told == [(topic_key, subscription_key)]
    expected = {"acked": 2, "rejected": 1, "dead_lettered": 1, "nacked": None}
    found = {
        name: registry.get_sample_value(f"fastpubsub_messages_{name}_total", {"subscription": "s"}) for name in expected
    }
    assert found == expected


async def pulled_ids(connection: psycopg.AsyncConnection, topic_key: int, subscription_key: int) -> list[str]:
    claim = "select from fastpubsub.claim_messages_2(%s, %s, '{10}', '{c}', 1000000)"
    await connection.execute(claim, (topic_key, subscription_key))
    query = """
        select m.position, m.created_at, l.token from fastpubsub.leases as l
        join fastpubsub.messages as m on m.position between l.position and l.last_position order by m.position
    """
    rows = await (await connection.execute(query)).fetchall()
    return [ack_id(MessageIds(topic_key, created_at).at(position), token) for position, created_at, token in rows]
