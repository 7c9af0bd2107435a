"""Servers that outlive a test, one for all settings of a process; their databases are empty when a test begins.

Those that no test has used for a while end: to start one again takes less of the processor than to keep it waiting.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests import harness, spread_databases

KEPT = ("alembic_version", "jobs")
PUBLIC = sql.SQL("drop schema public cascade; create schema public; grant usage on schema public to public")
IDLE = {"outbox_poll_interval_seconds": 1.0}
"""Several of them live as long as the run, and by default each would look 20 times a second for what SQL published."""


@dataclass
class Lasting(harness.Server):
    """It must not be stopped, and nothing of the schema fastpubsub in its database be changed but rows."""

    database_url: str = ""
    began: int = 0
    """Bytes of the log, when this test did."""

    used: float = 0.0
    """When the last test that used it ended, of the monotonic clock; infinite while one does."""

    def empty(self) -> None:
        with psycopg.connect(harness.libpq(self.database_url)) as connection:
            found = connection.execute("select tablename from pg_tables where schemaname = 'fastpubsub'").fetchall()
            names = [sql.Identifier("fastpubsub", name) for (name,) in found if name not in KEPT]
            statements = [sql.SQL("delete from {}").format(name) for name in names]
            # Where topics are spread, the catalog of the extension would go with it.
            last = [] if spread_databases.are_wanted() else [PUBLIC]
            connection.execute(sql.SQL("; ").join([*statements, *last]))
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
        started = Lasting(server.process, server.base_url, server.log, database_url=url, used=math.inf)
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
        while True:
            with suppress(psycopg.errors.DeadlockDetected):  # the server works on what is left
                server.empty()
                return server

    yield take
    for server in taken:
        server.used = time.monotonic()
