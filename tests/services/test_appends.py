"""Publishing to several topics at once: in one call, in which none waits or fails for another."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest, NotFound, OutcomeUnknown
from fastpubsub.payloads import Batch
from fastpubsub.services.directory import Directory
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.wakeups import Wakeups
from tests.api.calls import until_blocked
from tests.conftest import Connect
from tests.proxy import Proxy, Stage

TOPICS = ("busy", "a", "b", "c")
# Without the first of each topic, by which its key got known.
STORED = """
    select t.id, count(*) from fastpubsub.messages as m inner join fastpubsub.topics as t using (topic_key)
    where m.position > 1 group by t.id order by t.id
"""


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as opened:
        yield opened


@pytest.fixture
async def database(settings: Settings, proxy: Proxy) -> AsyncIterator[Database]:
    patient = {"database_lock_timeout_seconds": 60, "database_call_timeout_seconds": 90}
    opened = Database(settings.model_copy(update={**patient, "database_url": SecretStr(proxy.url)}))
    for topic in TOPICS:
        await opened.fetch_one("create_topic", topic)
    yield opened
    await opened.close()


@pytest.fixture
async def publishing(database: Database, settings: Settings) -> AsyncIterator[Publishing]:
    opened = Publishing(
        database, Directory(database), settings, Counters(CollectorRegistry(), 10), Wakeups(database, settings)
    )
    for topic in TOPICS:
        await opened.publish(topic, Batch([b"{}"], None, 2))
    yield opened
    await opened.close()


class Publishes:
    """Publishes while a call to one topic is in flight, which a lock holds up."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        self.tasks: dict[str, asyncio.Task[list[str]]] = {}

    def __call__(self, topic: str, payload: bytes = b"{}", count: int = 1) -> None:
        self.tasks[topic] = asyncio.create_task(self._publish(topic, [payload] * count))

    async def _publish(self, topic: str, payloads: list[bytes]) -> list[str]:
        published = await self._publishing.publish(topic, Batch(payloads, None, sum(map(len, payloads))))
        assert published is not None
        return published.ids()


@pytest.fixture
def publish(publishing: Publishing) -> Publishes:
    return Publishes(publishing)


async def hold(blocker: psycopg.AsyncConnection, *topics: str) -> None:
    query = """
        select from fastpubsub.heads as h inner join fastpubsub.topics as t using (topic_key) where t.id = any(%s)
        for update of h
    """
    await blocker.execute(query, [list(topics)])


async def transactions(connection: psycopg.AsyncConnection, *topics: str) -> int:
    """How many stored what these topics have."""
    query = """
        select count(distinct m.xmin::text) from fastpubsub.messages as m
        inner join fastpubsub.topics as t using (topic_key) where t.id = any(%s) and m.position > 1
    """
    ((count,),) = await (await connection.execute(query, [list(topics)])).fetchall()
    return int(count)


async def test_they_share_a_transaction_and_wait_for_no_other(publish: Publishes, connect: Connect) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        for topic in ("a", "b", "c"):
            publish(topic)
        ids = [(await publish.tasks[topic])[0] for topic in ("a", "b", "c")]
        assert await transactions(looking, "a", "b", "c") == 1
        assert not publish.tasks["busy"].done()
    assert len({*ids, *await publish.tasks["busy"]}) == 4
    assert await transactions(looking, *TOPICS) == 2


async def test_a_topic_that_others_hold_is_left_behind(publish: Publishes, connect: Connect) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy", "a")
        publish("busy")
        await until_blocked(looking)
        for topic in ("a", "b", "c"):
            publish(topic)
        await publish.tasks["b"]
        await publish.tasks["c"]
        assert not publish.tasks["a"].done()
    await publish.tasks["a"]
    await publish.tasks["busy"]
    assert await (await looking.execute(STORED)).fetchall() == [("a", 1), ("b", 1), ("busy", 1), ("c", 1)]


async def test_a_topic_that_is_gone_and_a_payload_that_is_none(
    publish: Publishes, database: Database, connect: Connect
) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        await database.fetch_one("delete_topic", "a")
        publish("a")
        publish("b", b'{"no json')
        publish("c")
        with pytest.raises(NotFound, match='topic "a" does not exist'):
            await publish.tasks["a"]
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await publish.tasks["b"]
        await publish.tasks["c"]
    await publish.tasks["busy"]
    assert await (await looking.execute(STORED)).fetchall() == [("busy", 1), ("c", 1)]


async def test_what_is_large_goes_by_itself(publish: Publishes, connect: Connect) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        publish("a")
        publish("b", b'"%s"' % (b"x" * 100_000))
        publish("c")
        for topic in ("a", "b", "c"):
            await publish.tasks[topic]
    assert await transactions(looking, "a", "c") == 1
    assert await transactions(looking, "a", "b", "c") == 2
    await publish.tasks["busy"]


async def test_what_does_not_fit_a_call_goes_in_several(publish: Publishes, connect: Connect) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        for topic in ("a", "b", "c"):
            publish(topic, count=600)
        for topic in ("a", "b", "c"):
            assert len(await publish.tasks[topic]) == 600
    assert await transactions(looking, "a", "b", "c") == 3
    await publish.tasks["busy"]


async def test_schemas_hold(publish: Publishes, database: Database, connect: Connect) -> None:
    for topic in ("a", "b"):
        await database.fetch_one("update_topic", topic, None, False, '{"required": ["n"]}', True)
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        for payload in (b'{"n":1}', b'{"n":2}'):
            publish("a", payload)
            publish("b", b"{}")
            publish("c")
            await publish.tasks["a"]
            with pytest.raises(InvalidRequest):
                await publish.tasks["b"]
            await publish.tasks["c"]
    await publish.tasks["busy"]
    assert await (await looking.execute(STORED)).fetchall() == [("a", 2), ("busy", 1), ("c", 2)]


@pytest.mark.parametrize("stage", Stage)
async def test_a_call_that_is_lost_is_stored_whole_or_not_at_all(
    stage: Stage, publish: Publishes, connect: Connect, proxy: Proxy
) -> None:
    looking = await connect()
    async with (blocker := await connect()).transaction():
        await hold(blocker, "busy")
        publish("busy")
        await until_blocked(looking)
        done = proxy.cut_call("publish_to_topics", stage)
        for topic in ("a", "b", "c"):
            publish(topic)
        for topic in ("a", "b", "c"):
            with pytest.raises(OutcomeUnknown):
                await publish.tasks[topic]
        assert done.is_set()
    await publish.tasks["busy"]
    stored = [("a", 1), ("b", 1), ("busy", 1), ("c", 1)] if stage is Stage.UNANSWERED else [("busy", 1)]
    assert await (await looking.execute(STORED)).fetchall() == stored
