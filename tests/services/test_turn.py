"""Which process does the background work, and what more processes cost: real ones, counted in PostgreSQL."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.urls import normalise
from fastpubsub.services.turn import Turn
from tests import harness
from tests.conftest import Connect, StartServer

Query = Callable[[str], Any]

SECONDS = 30.0
QUIET = {"outbox_poll_interval_seconds": 1.0}
"""So that the work of the holder does not hide what the others do."""

HOLDER = "select holder from fastpubsub.jobs where name = 'background'"
LIVING = "select processes from fastpubsub.inspect_processes()"
BLOCKED = "select pg_blocking_pids(%s) <> array[]::integer[]"
SETTLE_SECONDS = 12.0
"""Sessions tell what they counted up to ten seconds later."""

WINDOW_SECONDS = 12.0
WINDOWS = 4


async def test_the_last_to_start_takes_the_work(database: Database, settings: Settings) -> None:
    first, second = (Turn(database, settings) for _ in range(2))
    assert await first.look() == 1.0
    assert first.holds
    await second.look()
    assert second.holds
    await first.look()
    assert (first.holds, second.holds) == (False, True)


async def test_only_the_next_one_looks_as_often_as_the_holder(database: Database, settings: Settings) -> None:
    turns = [Turn(database, settings) for _ in range(7)]
    for turn in turns:
        await turn.look()
    pauses = [await turn.look() for turn in turns]
    assert sorted(pauses) == [1, 1, 7, 7, 7, 7, 7]
    assert pauses[-1] == 1, "the holder"


async def test_one_that_stops_is_followed_at_once(database: Database, settings: Settings) -> None:
    stays, stops = (Turn(database, settings) for _ in range(2))
    for turn in (stays, stops):
        await turn.look()
    await stays.look()
    assert not stays.holds
    await stops.give_up()
    await stays.look()
    assert (stays.holds, stops.holds) == (True, False)


LOOKED = "select p.expected_at - interval '3 seconds' from fastpubsub.processes as p where p.process = %s"
LATER = "select holds from fastpubsub.record_process(%s, 17, false, %s)"


async def looked_at(connection: psycopg.AsyncConnection, holder: Turn) -> datetime:
    """When it did last."""
    row = await (await connection.execute(LOOKED, [holder._process])).fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


async def holds(connection: psycopg.AsyncConnection, turn: Turn, at: datetime) -> bool:
    row = await (await connection.execute(LATER, [turn._process, at])).fetchone()
    assert row is not None
    return bool(row[0])


async def test_one_that_is_killed_is_followed_when_it_has_missed_three_times(
    database: Database, settings: Settings, connect: Connect
) -> None:
    stays, killed = (Turn(database, settings) for _ in range(2))
    for turn in (stays, killed):
        await turn.look()
    connection = await connect()
    at = await looked_at(connection, killed)
    assert not await holds(connection, stays, at + timedelta(seconds=2))
    assert await holds(connection, stays, at + timedelta(seconds=4))


async def test_when_the_next_one_is_killed_too_any_other_follows(
    database: Database, settings: Settings, connect: Connect
) -> None:
    turns = [Turn(database, settings) for _ in range(5)]
    for turn in turns:
        await turn.look()
    pauses = [await turn.look() for turn in turns]
    connection = await connect()
    (first, second, _) = (turn for turn, pause in zip(turns, pauses, strict=True) if pause > 1)
    at = await looked_at(connection, turns[-1])
    assert await holds(connection, first, at + timedelta(seconds=4))
    assert not await holds(connection, second, at + timedelta(seconds=5))
    assert not await holds(connection, turns[-1], at + timedelta(seconds=5)), "the holder, should it come back"


async def test_of_several_that_find_nobody_one_takes_the_work(
    database: Database, settings: Settings, connect: Connect
) -> None:
    await Turn(database, settings).look()
    one, other, third = await connect(), await connect(), await connect()
    await one.execute("delete from fastpubsub.processes")
    async with one.transaction():
        first = await (await one.execute("select holds from fastpubsub.record_process(1, 17)")).fetchone()
        waiting = asyncio.create_task(other.execute("select holds from fastpubsub.record_process(2, 17)"))
        async with asyncio.timeout(SECONDS):
            while (await (await third.execute(BLOCKED, [other.info.backend_pid])).fetchone()) != (True,):
                pass
    assert first == (True,)
    assert await (await waiting).fetchone() == (False,)


def wait_for(query: Query, statement: str, expected: Callable[[Any], bool]) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while not expected(query(statement)):
        assert time.monotonic() - began < SECONDS, statement
        time.sleep(0.05)
    return time.monotonic() - began


def commits_a_second(urls: list[str]) -> list[float]:
    """In each database."""
    time.sleep(SETTLE_SECONDS)
    began, before = time.monotonic(), commits(urls)
    time.sleep(WINDOW_SECONDS)
    seconds = time.monotonic() - began
    return [(later - earlier) / seconds for earlier, later in zip(before, commits(urls), strict=True)]


def commits(urls: list[str]) -> list[int]:
    name = "select xact_commit from pg_stat_database where datname = %s"
    with psycopg.connect(harness.libpq(harness.with_database(urls[0], "postgres"))) as connection:
        found = [connection.execute(name, [normalise(url).database]).fetchone() for url in urls]
    return [int(row[0]) for row in found if row is not None]


@pytest.mark.long
def test_idle_processes_add_hardly_anything(
    server: StartServer, databases: harness.Databases, template_url: str, database_url: str
) -> None:
    """Each of them once added more than two statements a second, so that seven did three times what two did.

    When sessions tell what they counted varies, so that a third more may look like a half in one of the windows.
    """
    other_url = databases.take()
    for _ in range(2):
        server(**QUIET)
    for _ in range(7):
        server(database_url=harness.with_role(other_url, template_url), **QUIET)
    found: list[list[float]] = []
    while not any(0 < seven < 1.5 * two for two, seven in found):
        assert len(found) < WINDOWS, found
        found.append(commits_a_second([database_url, other_url]))


@pytest.mark.long
def test_what_a_killed_holder_costs(server: StartServer, query: Query, database_url: str) -> None:
    """The others notice within four seconds, and messages from SQL move on."""
    server(**QUIET)
    wait_for(query, LIVING, lambda count: count == 1)
    holder = server(**QUIET)
    first = query(HOLDER)
    wait_for(query, LIVING, lambda count: count == 2)
    holder.kill()
    query("select fastpubsub.create_topic('t')")
    query("select fastpubsub.publish('t', '{}')")
    wait_for(query, HOLDER, lambda name: name != first)
    wait_for(query, "select count(*) from fastpubsub.messages", lambda count: count == 1)
