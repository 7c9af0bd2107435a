"""What the background of a server does, by the services that it calls."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import Unavailable
from fastpubsub.services import maintenance
from fastpubsub.services.maintenance import Maintenance, release_expired_leases, trim_messages
from fastpubsub.services.turn import Turn
from fastpubsub.services.wakeups import Wakeups

Connect = Callable[[], Awaitable[psycopg.AsyncConnection]]
SECONDS = 60.0
PAST = "update fastpubsub.leases set expires_at = expires_at - interval '1 day'"


async def subscribe(database: Database, topic: str = "t", attempts: int = 5) -> tuple[int, int]:
    """The keys of a topic and of its subscription with the same name."""
    topic_key, _ = await database.fetch_one("create_topic", topic)
    _, subscription_key, _ = await database.fetch_one("create_subscription", topic, topic, None, 60, attempts, 0, 0)
    return topic_key, subscription_key


async def publish(database: Database, topic_key: int, count: int) -> None:
    payloads = [json.dumps({"n": n}).encode() for n in range(count)]
    await database.fetch_one("publish_messages", topic_key, Array("json", payloads))


async def claim(database: Database, keys: tuple[int, int], count: int) -> list[int]:
    arguments = (Array("int4", [count]), Array("text", ["consumer"]), 1 << 20)
    row = await database.fetch_one("claim_messages_2", *keys, *arguments)
    return row[4] or []


async def count(connect: Connect, table: str) -> int:
    connection = await connect()
    cursor = await connection.execute(f"select count(*) from fastpubsub.{table}".encode())
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_leases_end_in_every_subscription_and_are_counted(
    database: Database, connect: Connect, registry: CollectorRegistry, counters: Counters
) -> None:
    patient, strict = await subscribe(database, "patient"), await subscribe(database, "strict", attempts=1)
    for keys, messages in ((patient, 2500), (strict, 3)):
        await publish(database, keys[0], messages)
        assert len(await claim(database, keys, messages)) == messages
    assert await release_expired_leases(database, counters=counters) == maintenance.Released(0, 0)
    await (await connect()).execute(PAST)
    assert await release_expired_leases(database, counters=counters) == maintenance.Released(2503, 3)
    assert (await count(connect, "leases"), await count(connect, "retries"), await count(connect, "dead_letters")) == (
        0,
        2500,
        3,
    )
    expired = "fastpubsub_messages_expired_total"
    assert registry.get_sample_value(expired, {"subscription": "patient"}) == 2500
    assert registry.get_sample_value("fastpubsub_messages_dead_lettered_total", {"subscription": "strict"}) == 3


async def test_a_lease_behind_the_look_back_is_left_to_the_full_pass(database: Database, connect: Connect) -> None:
    keys = await subscribe(database)
    await publish(database, keys[0], 1)
    await claim(database, keys, 1)
    await (await connect()).execute(PAST)
    assert (await release_expired_leases(database, 3600.0)).released == 0
    assert (await release_expired_leases(database)).released == 1


async def test_trimming_goes_on_until_nothing_is_left_to_trim(database: Database, connect: Connect) -> None:
    keys = await subscribe(database)
    for _ in range(6):
        await publish(database, keys[0], 2000)
        await claim(database, keys, 2000)
    await (await connect()).execute("delete from fastpubsub.leases")
    assert await trim_messages(database, 3600) == 0
    assert await trim_messages(database, 0) == 11_999
    assert await count(connect, "messages") == 1
    assert await count(connect, "claims") == 1


async def test_what_deleting_left_is_emptied(database: Database, connect: Connect) -> None:
    keys = await subscribe(database)
    await publish(database, keys[0], 7000)
    await claim(database, keys, 100)
    await database.fetch_one("delete_topic", "t")
    await trim_messages(database, 3600)
    for table in ("messages", "leases", "claims", "purges"):
        assert await count(connect, table) == 0


async def test_the_background_outlives_failures(
    database: Database,
    settings: Settings,
    counters: Counters,
    turn: Turn,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = await connect()
    await connection.execute("alter function fastpubsub.list_expired_leases rename to gone")
    quick = settings.model_copy(update={"lease_expiry_interval_seconds": 0.05, "trim_interval_seconds": 0.05})
    failed = asyncio.Event()
    monkeypatch.setattr(maintenance.logger, "log", lambda *_: failed.set())
    background = asyncio.create_task(Maintenance(database, quick, counters, Wakeups(database, quick), turn).run())
    try:
        async with asyncio.timeout(SECONDS):
            await failed.wait()
        await connection.execute("alter function fastpubsub.gone rename to list_expired_leases")
        keys = await subscribe(database)
        await publish(database, keys[0], 1)
        await claim(database, keys, 1)
        # Within what every pass looks back on.
        await connection.execute("update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 second'")
        async with asyncio.timeout(SECONDS):
            while await count(connect, "leases"):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
    finally:
        background.cancel()
        await asyncio.wait({background})


async def test_a_consumer_that_dies_again_and_again(
    database: Database, settings: Settings, counters: Counters, turn: Turn, connect: Connect
) -> None:
    """Without any cron; time is moved instead of waited for."""
    connection = await connect()
    keys = await subscribe(database, attempts=3)
    await publish(database, keys[0], 1)
    quick = settings.model_copy(update={"lease_expiry_interval_seconds": 0.05})
    background = asyncio.create_task(Maintenance(database, quick, counters, Wakeups(database, quick), turn).run())
    try:
        for _ in range(3):
            async with asyncio.timeout(SECONDS):
                while await claim(database, keys, 1) != [1]:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.02)
            await connection.execute(
                "update fastpubsub.leases set expires_at = clock_timestamp() - interval '1 second'"
            )
        async with asyncio.timeout(SECONDS):
            while not await count(connect, "dead_letters"):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
    finally:
        background.cancel()
        await asyncio.wait({background})
    assert await claim(database, keys, 1) == []
    cursor = await connection.execute("select attempts, reason from fastpubsub.dead_letters")
    assert await cursor.fetchall() == [(3, "lease expired on delivery attempt 3 of 3")]


async def test_an_unavailable_database_is_no_traceback(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    tried = asyncio.Event()

    async def job() -> None:
        tried.set()
        raise Unavailable("it is away")

    task = asyncio.create_task(maintenance._repeat(job, 3600, turn))
    await tried.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert "it is away" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_defect_is_logged_and_does_not_end_the_job(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    tried = asyncio.Semaphore(0)

    async def job() -> None:
        tried.release()
        raise RuntimeError("a defect")

    task = asyncio.create_task(maintenance._repeat(job, 0.001, turn))
    async with asyncio.timeout(SECONDS):
        for _ in range(3):
            await tried.acquire()
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert "Traceback" in caplog.text
