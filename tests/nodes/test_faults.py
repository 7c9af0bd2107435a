"""Processes of the cluster crash and stand still: `make test-citus FAULTS=1`, by a role that may run programs there."""

import asyncio
import functools
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import httpx
import psycopg
import pytest
from psycopg import sql

from fastpubsub.database.urls import normalise
from tests import spread_databases
from tests.conftest import StartServer
from tests.nodes.load import CALM, SECONDS, TOPICS, Load

CRASHES = 5
FROZEN_SECONDS = 20
CRASH = "kill -9 $PPID"
FREEZE = f"""
p=$(head -n 1 postmaster.pid); all="$p $(ps -o pid= --ppid $p)"
(sleep {FROZEN_SECONDS}; kill -CONT $all) >/dev/null 2>&1 &
kill -STOP $all
"""


@functools.cache
def urls() -> dict[int, str]:
    """Of the nodes, by their groups; the coordinator has 0. While it is away, nobody else could say."""
    url = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
    return {
        group: spread_databases.of(url, host=host, port=port, database="postgres")
        for host, port, group in spread_databases.nodes()
    }


def run_there(group: int, program: str) -> None:
    """On the machine of the node, in the folder of its data; the connection may not survive it."""
    url = urls()[group]
    with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("copy (select) to program {}").format(sql.Literal(program)))


@dataclass
class Application:
    """Publishes one message in each of its transactions, to one topic after the other, on the coordinator."""

    url: str
    committed: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    stops: asyncio.Event = field(default_factory=asyncio.Event)
    number: int = 0

    async def run(self) -> None:
        while not self.stops.is_set():
            with suppress(psycopg.OperationalError):
                async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                    await self._publish(connection)
            await asyncio.sleep(0.2)

    async def _publish(self, connection: psycopg.AsyncConnection) -> None:
        while not self.stops.is_set():
            self.number += 1
            number, topic = self.number, TOPICS[self.number % len(TOPICS)]
            self.unknown.add(number)
            await connection.execute(
                "select fastpubsub.publish(%s, json_build_object('n', %s::integer))", [topic, number]
            )
            self.unknown.remove(number)
            self.committed.add(number)

    async def until_more(self, count: int) -> None:
        """Further messages are committed."""
        wanted = len(self.committed) + count
        while len(self.committed) < wanted:  # noqa: ASYNC110 - of several crashes
            await asyncio.sleep(0.05)

    async def until_relayed(self, count: int) -> None:
        """A relay is at work."""
        wanted = count + len(self.committed) - await waiting(self.url)
        while len(self.committed) - await waiting(self.url) < wanted:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)


@pytest.fixture
def slow_commits(database_url: str) -> str:
    """A commit on the coordinator waits before it is on disk, so that a crash is likely to come in between."""
    name = sql.Identifier(normalise(database_url).database or "")
    with psycopg.connect(spread_databases.of(database_url), autocommit=True) as connection:
        connection.execute(sql.SQL("alter database {} set commit_delay = 50000").format(name))
        connection.execute(sql.SQL("alter database {} set commit_siblings = 0").format(name))
    return database_url


async def test_a_crash_of_the_coordinator_relays_everything_once(slow_commits: str, server: StartServer) -> None:
    assert set(urls()) > {0}
    application = Application(spread_databases.of(slow_commits))
    async with httpx.AsyncClient(base_url=server(**CALM).base_url, timeout=SECONDS) as client:
        load = Load(client, TOPICS)
        await load.create()
        running = asyncio.create_task(application.run())
        in_doubt = 0
        for _ in range(CRASHES):
            await application.until_more(10)
            await application.until_relayed(2 * len(TOPICS))
            await asyncio.to_thread(run_there, 0, CRASH)
            in_doubt += prepared()
        await application.until_more(10)
        application.stops.set()
        await running
        received = await received_by(load, application)
    assert {number for number, times in received.items() if times > 1} == set()
    assert application.committed <= received.keys() <= application.committed | application.unknown
    print(
        f"{CRASHES} crashes: {len(application.committed)} committed, {len(application.unknown)} unknown, "
        f"{len(received)} received, {in_doubt} transactions in doubt"
    )


def prepared() -> int:
    """Transactions on the nodes that wait for the coordinator."""
    found = 0
    for group, url in urls().items():
        if group:
            with psycopg.connect(url, autocommit=True) as connection:
                found += connection.execute("select count(*) from pg_prepared_xacts").fetchall()[0][0]
    return found


async def received_by(load: Load, application: Application) -> Counter[int]:
    """Everything that arrives, until all that was committed has, and the outbox is empty."""
    received: Counter[int] = Counter()
    deadline = monotonic() + SECONDS
    empty = 0
    while empty < len(TOPICS) or not application.committed <= received.keys() or await waiting(application.url):
        assert monotonic() < deadline, f"{len(application.committed - received.keys())} messages did not arrive"
        empty = 0
        for topic in TOPICS:
            path = f"/subscriptions/{topic}/messages?consumer_id=c&batch_size=100"
            answer = await load.client.get(path)
            if answer.status_code != httpx.codes.OK:
                continue
            found = answer.json()["data"]
            empty += not found
            received.update(one["payload"]["n"] for one in found)
        await asyncio.sleep(0.2)
    return received


async def waiting(url: str) -> int:
    """Rows in the outbox."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        (row,) = await (await connection.execute("select count(*) from fastpubsub.outbox")).fetchall()
        return int(row[0])


async def test_a_node_that_stands_still_stops_only_its_topics(database_url: str, server: StartServer) -> None:
    """A pull may be done after its answer was given up, so that its lease has to run out."""
    async with httpx.AsyncClient(base_url=server(**CALM).base_url, timeout=SECONDS) as client:
        load = Load(client, TOPICS, ack_deadline_seconds=60)
        await load.create()
        await stand_still(database_url, load)


async def stand_still(database_url: str, load: Load) -> None:
    placed = spread_databases.nodes_of(database_url)
    frozen = placed[TOPICS[0]][0]
    lost = {topic for topic, (group, _) in placed.items() if group == frozen}
    assert set(TOPICS) - lost, "all topics are on one node"
    waits: list[float] = []

    async def freeze() -> None:
        await asyncio.sleep(1)
        freezing = asyncio.create_task(asyncio.to_thread(run_there, frozen, FREEZE))
        started = monotonic()
        await load.until_refused({TOPICS[0]})
        print(f"answered 503 {monotonic() - started:.1f} s after it stood still")
        others = sum(1 for topic, _ in load.confirmed if topic not in lost)
        while monotonic() < started + FROZEN_SECONDS / 2:
            asked = monotonic()
            refused = await load.client.post(f"/topics/{TOPICS[0]}/messages", json=[{"n": 0}])
            assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
            waits.append(monotonic() - asked)
            await asyncio.sleep(0.5)
        assert sum(1 for topic, _ in load.confirmed if topic not in lost) > others
        await freezing

    await load.run(freeze())
    load.check()
    print(f"a node stands still: {load.told()}, then 503 after {max(waits):.2f} s at most")
