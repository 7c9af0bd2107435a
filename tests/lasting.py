"""Servers and applications that outlive a test; their databases are empty when a test begins.

A server is there for each settings of a process of the run. Those that no test has used for a while end: to start one
again takes less of the processor than to keep it waiting. An application is that of a file of tests.
"""

import asyncio
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql

from fastpubsub.config import Settings
from tests import harness, spread_databases

KEPT = ("alembic_version", "jobs")
IN_PUBLIC = """
select 1 from pg_depend where refclassid = 'pg_namespace'::regclass and refobjid = 'public'::regnamespace limit 1
"""
PUBLIC = sql.SQL("drop schema public cascade; create schema public; grant usage on schema public to public")
IDLE = {"outbox_poll_interval_seconds": 1.0}
"""Several of them live as long as the run, and by default each would look 20 times a second for what SQL published."""


class Emptying:
    """Of one database, on a connection of its own: a new one would have to learn of every table before it deletes."""

    def __init__(self, database_url: str) -> None:
        self._url = harness.libpq(database_url)
        self._connection = self._connect()

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._url, autocommit=True)
        found = connection.execute("select tablename from pg_tables where schemaname = 'fastpubsub'").fetchall()
        names = [sql.Identifier("fastpubsub", name) for (name,) in found if name not in KEPT]
        deletes = sql.SQL("begin {} end").format(sql.SQL(" ").join(map(sql.SQL("delete from {};").format, names)))
        body = sql.Literal(deletes.as_string(connection))
        connection.execute(sql.SQL("create function pg_temp.empty() returns void language plpgsql as ") + body)
        return connection

    def empty(self) -> None:
        """Deletes all rows, and what is in the schema `public`."""
        while not self._has_deleted():
            pass
        # Where topics are spread, the catalog of the extension would go with it.
        if not spread_databases.are_wanted() and self._connection.execute(IN_PUBLIC).fetchone():
            self._connection.execute(PUBLIC)

    def _has_deleted(self) -> bool:
        if self._connection.closed:
            self._connection = self._connect()
        try:
            self._connection.execute("select pg_temp.empty()")
        except psycopg.errors.DeadlockDetected:  # the server works on what is left
            return False
        except psycopg.OperationalError:
            # A test may have ended all connections to the database.
            if not self._connection.closed:
                raise
            return False
        return True

    def close(self) -> None:
        self._connection.close()


@dataclass
class Lasting(harness.Server):
    """It must not be stopped, and nothing of the schema fastpubsub in its database be changed but rows."""

    database_url: str = ""
    emptying: Emptying = field(kw_only=True)
    began: int = 0
    """Bytes of the log, when this test did."""

    used: float = 0.0
    """When the last test that used it ended, of the monotonic clock; infinite while one does."""

    def empty(self) -> None:
        self.emptying.empty()
        self.began = self.log.stat().st_size

    def output(self) -> str:
        """Of this test."""
        return self.log.read_bytes()[self.began :].decode(errors="replace")


Last = Callable[..., Lasting]

UNUSED_SECONDS = 20.0
"""In which one that waits takes as much of the processor as a start."""


class LastingServers:
    """Of one process of the run."""

    def __init__(self, databases: harness.Databases, template: str, factory: pytest.TempPathFactory) -> None:
        self._databases = databases
        self._template = template
        self._factory = factory
        self._running: dict[str, Lasting] = {}
        self._ending: list[Lasting] = []

    def find(self, **settings: object) -> Lasting:
        """Starts one with settings that there is none with."""
        key = repr(sorted(settings.items()))
        if key not in self._running:
            self._running[key] = self._start(self._factory.mktemp("server"), **settings)
        return self._running[key]

    def _start(self, folder: Path, **settings: object) -> Lasting:
        url = self._databases.take()
        given = {"database_url": harness.with_role(url, self._template), **IDLE, **settings}
        server = harness.start_server(["server"], folder, given)
        started = Lasting(
            server.process, server.base_url, server.log, database_url=url, emptying=Emptying(url), used=math.inf
        )
        try:
            started.wait_until_ready()
        except BaseException:
            self._end(started)
            raise
        return started

    def end_unused(self, seconds: float = UNUSED_SECONDS) -> None:
        """Those that no test has used for so long; a test that runs uses its own."""
        for key, server in [*self._running.items()]:
            if time.monotonic() - server.used >= seconds:
                del self._running[key]
                self._end(server)

    def _end(self, server: Lasting) -> None:
        """Without waiting for it."""
        server.emptying.close()
        server.process.send_signal(signal.SIGTERM)
        self._ending.append(server)

    def close(self) -> None:
        self.end_unused(-math.inf)
        for server in self._ending:
            server.stop()
            self._databases.drop(server.database_url)


SERVERS = pytest.StashKey[LastingServers]()


@pytest.fixture(scope="session")
def lasting_servers(
    databases: harness.Databases,
    template_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[LastingServers]:
    servers = LastingServers(databases, template_url, tmp_path_factory)
    pytestconfig.stash[SERVERS] = servers
    yield servers
    servers.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if servers := item.config.stash.get(SERVERS, None):
        servers.end_unused()


@pytest.fixture
def lasting_server(lasting_servers: LastingServers) -> Iterator[Last]:
    """`lasting_server(auth_enabled=True).base_url`: a server with these settings, on a database with nothing in it."""
    taken: list[Lasting] = []

    def take(**settings: object) -> Lasting:
        server = lasting_servers.find(**settings)
        server.used = math.inf
        taken.append(server)
        server.empty()
        return server

    yield take
    for server in taken:
        server.used = time.monotonic()


class SharedApplication:
    """One that tests of a file use one after the other; another one takes its place for those with other settings.

    What they change in it, but for rows of the database, and what it counts, is there for the next test, too.
    """

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self._emptying = Emptying(database_url)
        self._running = AsyncExitStack()
        self._settings: Settings | None = None
        self._app: FastAPI | None = None

    async def get(self, settings: Settings) -> FastAPI:
        """With nothing in its database, and no key of what was there."""
        if self._app is None or settings != self._settings:
            self._app = None
            await self._running.aclose()
            self._app = await self._running.enter_async_context(harness.running(settings))
            self._settings = settings
        await asyncio.to_thread(self._emptying.empty)
        for names in (self._app.state.directory.topics, self._app.state.directory.subscriptions):
            names._keys._values.clear()
        return self._app

    async def close(self) -> None:
        await self._running.aclose()
        self._emptying.close()
