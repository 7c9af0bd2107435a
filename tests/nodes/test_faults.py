"""Processes of the cluster crash and stand still: `make test-citus FAULTS=1`, by a role that may run programs there."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, sleep

import httpx
import psycopg
import pytest

from tests import spread_databases
from tests.conftest import StartServer
from tests.nodes.load import CALM, SECONDS, TOPICS, Load
from tests.nodes.there import run_there, slow_commits, urls

CRASHES = 5
WORKERS = 4
EACH = 60
FROZEN_SECONDS = 20
CRASH = "kill -9 $PPID"
FREEZE = f"""
p=$(head -n 1 postmaster.pid); all="$p $(ps -o pid= --ppid $p)"
(sleep {FROZEN_SECONDS}; kill -CONT $all) >/dev/null 2>&1 &
kill -STOP $all
"""


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


async def test_a_crash_of_the_coordinator_relays_everything_once(database_url: str, server: StartServer) -> None:
    assert set(urls()) > {0}
    slow_commits(database_url, 0)
    application = Application(spread_databases.of(database_url))
    async with httpx.AsyncClient(base_url=server(**CALM).base_url, timeout=SECONDS) as client:
        load = Load(client, TOPICS)
        await load.create()
        running = asyncio.create_task(application.run())
        in_doubt = 0
        for _ in range(CRASHES):
            await application.until_more(10)
            await application.until_relayed(2 * len(TOPICS))
            await asyncio.to_thread(run_there, 0, CRASH)
            in_doubt += await asyncio.to_thread(prepared)
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
    """Transactions on the nodes that wait for the coordinator; what crashed is there again."""
    found = {group: waiting_there(url) for group, url in urls().items()}
    return sum(count for group, count in found.items() if group)


def waiting_there(url: str) -> int:
    deadline = monotonic() + SECONDS
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                return int(connection.execute("select count(*) from pg_prepared_xacts").fetchall()[0][0])
        except psycopg.OperationalError:
            assert monotonic() < deadline
            sleep(0.1)


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


@dataclass
class Worker:
    """Notes each message in a table of the coordinator and acks it, in one transaction, one topic after the other."""

    url: str
    client: httpx.AsyncClient
    topics: list[str]
    committed: int = 0
    unknown: int = 0
    stops: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while not self.stops.is_set():
            with suppress(psycopg.Error):
                async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
                    while not self.stops.is_set():
                        await self._work(connection)
            await asyncio.sleep(0.1)

    async def _work(self, connection: psycopg.AsyncConnection) -> None:
        for topic in self.topics:
            answer = await self.client.get(f"/subscriptions/{topic}/messages?consumer_id=c&batch_size=1")
            if answer.status_code != httpx.codes.OK:
                await asyncio.sleep(0.1)
                continue
            for one in answer.json()["data"]:
                self.unknown += 1
                async with connection.transaction():
                    await connection.execute("insert into public.work values (%s, %s)", [topic, one["payload"]["n"]])
                    await connection.execute("select fastpubsub.ack(%s, %s)", [topic, [one["ack_id"]]])
                self.unknown -= 1
                self.committed += 1


@pytest.mark.parametrize("at_coordinator", [True, False], ids=["the coordinator", "a node"])
async def test_a_crash_settles_exactly_what_was_worked(
    database_url: str, server: StartServer, at_coordinator: bool
) -> None:
    """While transactions commit that write rows of an application on the coordinator and ack on a node."""
    application = spread_databases.of(database_url)
    with psycopg.connect(application, autocommit=True) as connection:
        connection.execute("create table public.work (topic text, n integer)")
    async with httpx.AsyncClient(base_url=server(**CALM).base_url, timeout=SECONDS) as client:
        load = Load(client, TOPICS, ack_deadline_seconds=10)
        await load.create()
        crashing = 0 if at_coordinator else spread_databases.nodes_of(database_url)[TOPICS[0]][0]
        slow_commits(database_url, crashing)
        for topic in TOPICS:
            body = [{"n": n} for n in range(EACH)]
            (await client.post(f"/topics/{topic}/messages", json=body)).raise_for_status()
        workers = [Worker(application, client, TOPICS[first::WORKERS]) for first in range(WORKERS)]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        in_doubt = 0
        for _ in range(2 * CRASHES):
            await until_committed(workers, 2 * WORKERS)
            await asyncio.to_thread(run_there, crashing, CRASH)
            in_doubt += await asyncio.to_thread(prepared)
        await until_settled(client)
        for worker in workers:
            worker.stops.set()
        await asyncio.gather(*running)
    with psycopg.connect(application, autocommit=True) as connection:
        worked = Counter(connection.execute("select topic, n from public.work").fetchall())
    lost = [(topic, n) for topic in TOPICS for n in range(EACH) if (topic, n) not in worked]
    doubled = [one for one, times in worked.items() if times > 1]
    print(
        f"{2 * CRASHES} crashes: {worked.total()} rows for {EACH * len(TOPICS)} messages, {len(lost)} lost, "
        f"{len(doubled)} doubled, {sum(one.unknown for one in workers)} commits without an answer, {in_doubt} in doubt"
    )
    assert (lost, doubled) == ([], [])


async def until_committed(workers: list[Worker], count: int) -> None:
    """Further transactions are committed."""
    wanted = sum(one.committed for one in workers) + count
    async with asyncio.timeout(SECONDS):
        while sum(one.committed for one in workers) < wanted:  # noqa: ASYNC110 - of several crashes
            await asyncio.sleep(0.02)


async def until_settled(client: httpx.AsyncClient) -> None:
    """Nothing is ahead or held. A transaction in doubt is ended within a minute, and holds its lease until then."""
    async with asyncio.timeout(3 * SECONDS):
        for topic in TOPICS:
            while not await is_settled(client, topic):  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.2)


async def is_settled(client: httpx.AsyncClient, topic: str) -> bool:
    answer = await client.get(f"/subscriptions/{topic}/metrics")
    found = answer.json() if answer.status_code == httpx.codes.OK else {}
    return (found.get("available"), found.get("delivered"), found.get("dlq")) == (0, 0, 0)


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
