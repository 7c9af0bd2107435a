"""What a fault is done to: a PostgreSQL that flushes, servers, what lies between them, and a load."""

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg

from fastpubsub.embedded import EmbeddedPostgres
from tests import clusters, harness
from tests.faults.history import History
from tests.faults.load import Load
from tests.faults.wire import NoAnswerError, NotSentError
from tests.proxy import Proxy

SOON = 60.0
"""Seconds, for what has to happen and may take long on a busy machine."""

PUSH_KEY = "k" * 32
BUSY = 5
"""A kill counts when at least so many requests are in flight."""


@dataclass(frozen=True)
class Setup:
    servers: int = 1
    workers: int = 2
    settings: Mapping[str, object] = field(default_factory=dict)
    postgres: Mapping[str, str] = field(default_factory=dict)
    through: Literal["nothing", "proxy", "pgbouncer"] = "nothing"
    command: tuple[str, ...] = ()
    """Instead of a warm `fastpubsub`."""
    load: bool = True
    pace: float = 1.0
    standby: bool = False
    """The servers know the address of one, which is not there yet."""
    memory_mb: int | None = None
    """The database lies on a file system in memory of this size."""
    pushed: bool = False
    """Some subscriptions are pushed to a service of the load."""
    featured: bool = False
    """Instead of plain topics those with times, limits and transactions."""
    kept: bool = False
    """Instead of plain topics those with backlogs, dead letters, a schema and forks."""
    pushers: int = 0
    """Processes of `fastpubsub push`, instead of the servers."""


class Rig:
    """Everything that it started is gone when it closes."""

    def __init__(self, setup: Setup, seed: int, folder: Path, closing: AsyncExitStack) -> None:
        self.setup = setup
        self.seed = seed
        self.closing = closing
        self.is_whole = False
        self.ports = [harness.free_port() for _ in range(2 if setup.standby else 1)]
        self.random = random.Random(seed)
        self.folder = folder
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.ports[0]),
            "max_wal_size": "64MB",
            **setup.postgres,
        }
        self.postgres = EmbeddedPostgres(clusters.fill(folder / "postgres", migrated=True), settings=options)
        self.database_url = self.url(self.ports[0])
        """Of the database itself, whatever lies before it."""
        self.server_url = self.database_url
        """What the servers are given."""
        self.proxy: Proxy
        self.servers: list[harness.Server] = []
        self.pushers: list[harness.Server] = []
        self.load: Load

    def url(self, port: int) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"

    @property
    def server(self) -> harness.Server:
        return self.servers[0]

    @property
    def processes(self) -> list[harness.Server]:
        return [*self.servers, *self.pushers]

    @property
    def history(self) -> History:
        return self.load.history

    # servers

    def start_server(
        self, port: int | None = None, command: tuple[str, ...] = (), **settings: object
    ) -> harness.Server:
        """Not ready yet."""
        given = {
            "database_url": self.server_url,
            "api_num_workers": self.setup.workers,
            "database_require_durability": True,
            "log_requests": False,
            "lease_expiry_interval_seconds": 0.5,
            **self.push_settings(),
            **self.setup.settings,
            **settings,
        }
        command = command or self.setup.command
        return harness.start_server(["server"], self.folder, given, command=command, port=port)

    def push_settings(self) -> dict[str, object]:
        """For endpoints on this machine."""
        if not self.setup.pushed:
            return {}
        return {
            "push_secret_key": PUSH_KEY,
            "push_allow_http": True,
            "push_allow_networks": "127.0.0.0/8",
            "push_allow_ports": "*",
            "push_enabled": not self.setup.pushers,
        }

    def start_pusher(self) -> harness.Server:
        given = {"database_url": self.server_url, **self.push_settings(), **self.setup.settings}
        return harness.start_server(["push"], self.folder, given)

    async def ready(self, server: harness.Server) -> float:
        """Seconds until it is."""
        started = time.monotonic()
        await asyncio.to_thread(server.wait_until_ready)
        return time.monotonic() - started

    def workers(self, server: harness.Server | None = None) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process((server or self.server).process.pid).children()
        return [one for one in found if is_alive(one)]

    async def all_workers(self) -> list[psutil.Process]:
        """When there are as many as there should be."""
        await self.until(lambda: len(self.workers()) >= self.setup.workers, "the workers are not complete")
        return self.workers()

    # the database

    async def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        connection = await psycopg.AsyncConnection.connect(harness.libpq(self.database_url), autocommit=True)
        async with connection:
            cursor = await connection.execute(statement.encode(), arguments or None)
            return await cursor.fetchall() if cursor.description else []

    async def until_found(
        self, statement: str, *row: object, seconds: float = SOON, arguments: Sequence[object] = ()
    ) -> None:
        """Until the only row is this."""
        until = time.monotonic() + seconds
        while (found := await self.query(statement, *arguments)) != [row]:
            assert time.monotonic() < until, f"{found} instead of {row} after {seconds} s"
            await asyncio.sleep(0.05)

    async def crash_postgres(self, number: signal.Signals) -> None:
        """SIGQUIT is an immediate stop; it stays down."""
        assert self.postgres.pid is not None
        await self.kill(self.postgres.pid, number, crash=True)
        await asyncio.to_thread(self.postgres.stop)
        self.history.note("crashed")

    async def start_postgres(self) -> None:
        """After a kill its shared memory may be in use for a moment."""
        deadline = time.monotonic() + SOON
        while True:
            try:
                await asyncio.to_thread(self.postgres.start)
            except Exception:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                return self.history.note("crashed")  # the last of its processes, or it would not start

    # striking

    async def busy(self) -> None:
        """Returns at a moment when so much is in flight that a kill counts."""
        async with asyncio.timeout(SOON):
            await self.history.until_open(BUSY)

    async def kill(self, pid: int, number: signal.Signals = signal.SIGKILL, *, crash: bool = False) -> None:
        """`crash`: of the database, which may forget claims."""
        await self.busy()
        self.history.note("kill", pid=pid)
        if crash:
            self.history.note("crash")
        os.kill(pid, number)

    async def until(self, condition: Callable[[], bool], otherwise: str, seconds: float = SOON) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"{otherwise} after {seconds} s")
            await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def until_answered(self, path: str, *statuses: int) -> float:
        """Seconds until the server answers so."""
        started = time.monotonic()
        wire = self.load.wire()
        answer = None
        while answer is None or answer.status not in statuses:
            if time.monotonic() - started > SOON:
                raise AssertionError(f"{path} is not answered {statuses} after {SOON} s, but {answer}")
            with suppress(NoAnswerError, NotSentError):
                answer = await wire.ask("GET", path)
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    async def run_command(
        self, *arguments: str, printing: bool = False, **settings: object
    ) -> asyncio.subprocess.Process:
        """Starts `fastpubsub …`; its output is kept only when it is asked for."""
        environment = harness.environment({"database_url": self.server_url, **settings})
        nothing = asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            harness.COMMAND,
            *arguments,
            cwd=self.folder,
            env=environment,
            stdin=nothing,
            stdout=asyncio.subprocess.PIPE if printing else nothing,
            stderr=nothing,
        )

    async def works_again(self) -> float:
        """Seconds until messages are published and consumed."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(SOON):
                await self.load.progress(10)
        except TimeoutError:
            raise AssertionError(f"nothing is published and consumed: {dict(self.load.statuses)}") from None
        return time.monotonic() - started


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def accepts(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False
