"""Servers that outlive a test, one for all settings of a process; their databases are empty when a test begins."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests import harness

KEPT = ("alembic_version", "jobs")
IDLE = {"outbox_poll_interval_seconds": 1.0}
"""Several of them live as long as the run, and by default each would look 20 times a second for what SQL published."""


@dataclass
class Lasting(harness.Server):
    """It must not be stopped, and nothing of the schema fastpubsub in its database be changed but rows."""

    database_url: str = ""
    began: int = 0
    """Bytes of the log, when this test did."""

    def empty(self) -> None:
        with psycopg.connect(harness.libpq(self.database_url)) as connection:
            found = connection.execute("select tablename from pg_tables where schemaname = 'fastpubsub'").fetchall()
            for name in (name for (name,) in found if name not in KEPT):
                connection.execute(sql.SQL("delete from {}").format(sql.Identifier("fastpubsub", name)))
            connection.execute(
                "drop schema public cascade; create schema public; grant usage on schema public to public"
            )
        self.began = self.log.stat().st_size

    def output(self) -> str:
        """Of this test."""
        return self.log.read_bytes()[self.began :].decode(errors="replace")


Last = Callable[..., Lasting]


@pytest.fixture(scope="session")
def lasting_servers(
    databases: harness.Databases, template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Lasting]]:
    """Starts one with settings that there is none with."""
    with ExitStack() as stack:
        started: dict[str, Lasting] = {}

        def start(folder: Path, **settings: object) -> Lasting:
            url = databases.take()
            stack.callback(databases.drop, url)
            given = {"database_url": harness.with_role(url, template_url), **IDLE, **settings}
            server = harness.start_server(["server"], folder, given)
            stack.callback(server.stop)
            server.wait_until_ready()
            return Lasting(server.process, server.base_url, server.log, database_url=url)

        def find(**settings: object) -> Lasting:
            key = repr(sorted(settings.items()))
            if key not in started:
                started[key] = start(tmp_path_factory.mktemp("server"), **settings)
            return started[key]

        yield find


@pytest.fixture
def lasting_server(lasting_servers: Last) -> Last:
    """`lasting_server(auth_enabled=True).base_url`: a server with these settings, on a database with nothing in it."""

    def take(**settings: object) -> Lasting:
        server = lasting_servers(**settings)
        while True:
            with suppress(psycopg.errors.DeadlockDetected):  # the server works on what is left
                server.empty()
                return server

    return take
