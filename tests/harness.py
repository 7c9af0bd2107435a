"""What the fixtures are made of: one PostgreSQL for a run, databases cloned from a template, the real server."""

import asyncio
import http.client
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy import URL

from fastpubsub.config import Settings
from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from fastpubsub.embedded import EmbeddedError, EmbeddedPostgres, locked, stop_left_behind
from tests import spread_databases, warm

PREFIX = "fastpubsub_test"
ROLES = ("migrator", "server", "metrics")
MAX_PROCESSES = 8
"""Of a run, as the Makefile has it."""
START_SECONDS = 60.0
YOUNG_SECONDS = 60.0
COMMAND = Path(sys.executable).with_name("fastpubsub")
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
"""Free there, for databases to lie there: hundreds of them are made, and to make their files takes longest."""


class Postgres:
    """FASTPUBSUB_TEST_DATABASE_URL, or a server of FASTPUBSUB_TEST_POSTGRES: 18 (the default), 16, or a `bin` folder.

    FASTPUBSUB_TEST_FSYNC=on makes its commits durable, as in production and much slower.
    FASTPUBSUB_TEST_ROLE=server lets applications and servers have the rights of that role of docs/operations.md only.
    """

    def __init__(self) -> None:
        self.run = f"{PREFIX}_{uuid.uuid4().hex[:8]}"
        self.embedded: EmbeddedPostgres | None = None
        self.url: str | None = None
        self.roles: list[str] = []

    def start(self) -> str:
        """The URL of the migrated template; every database of the run has a name that begins like its name."""
        if self.url is None:
            maintenance = os.environ.get("FASTPUBSUB_TEST_DATABASE_URL") or self._start_embedded()
            refuse_foreign(maintenance)
            self.url = with_database(maintenance, self.run)
            if spread_databases.are_wanted():
                spread_databases.create(maintenance, self.run)
                return self.url
            execute(maintenance, sql.SQL("create database {}").format(sql.Identifier(self.run)))
            migrations.upgrade(self.url)
            if role := os.environ.get("FASTPUBSUB_TEST_ROLE"):
                for block in role_blocks(self.run, self.run):
                    execute(self.url, sql.SQL(block))
                self.roles = [f"{self.run}_{name}" for name in ROLES]
                alter = sql.SQL("alter role {} password {}")
                name = sql.Identifier(f"{self.run}_{role}")
                execute(self.url, sql.Composed([alter.format(name, sql.Literal(self.run))]))
        return self.url

    def _start_embedded(self) -> str:
        for place in {MEMORY, Path(tempfile.gettempdir())}:
            remove_left_behind(place)
        wanted = os.environ.get("FASTPUBSUB_TEST_POSTGRES", "18")
        data = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-", dir=roomy_folder()))
        settings = {"max_connections": "300", "max_prepared_transactions": "10", "max_wal_size": "256MB"}
        # On, as `fastpubsub doctor` wants it, and it never comes: what it counts and cleans would be luck.
        settings["autovacuum_naptime"] = "2147483"
        if os.environ.get("FASTPUBSUB_TEST_FSYNC") != "on":
            settings |= {"fsync": "off", "full_page_writes": "off"}
        if wanted.isdecimal():
            self.embedded = EmbeddedPostgres(data, int(wanted), settings=settings)
        else:
            self.embedded = EmbeddedPostgres(data, binaries=Path(wanted), settings=settings)
        self.embedded.start()
        execute(self.embedded.url(), sql.SQL("create database {}").format(sql.Identifier(PREFIX)))
        return self.embedded.url(PREFIX)

    def stop(self) -> None:
        if self.embedded is not None:
            self.embedded.stop()
            shutil.rmtree(self.embedded.data, ignore_errors=True)  # another run may think that it was left behind
        elif self.url is not None:
            maintenance = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
            with psycopg.connect(libpq(maintenance), autocommit=True) as connection:
                found = connection.execute("select datname from pg_database where starts_with(datname, %s)", [self.run])
                for (name,) in found.fetchall():
                    if spread_databases.are_wanted():
                        spread_databases.drop(maintenance, name)
                        continue
                    connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
                for role in self.roles:
                    connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def role_blocks(prefix: str, database: str) -> list[str]:
    """What docs/operations.md says about roles, for roles whose names begin with the prefix."""
    from tests.pages import DOCS, blocks

    page = blocks(DOCS / "operations.md")
    texts = [one.text for one in page if one.heading == "Roles" and one.language == "sql"]
    named = [re.sub(rf"\bfastpubsub_({'|'.join(ROLES)})\b", rf"{prefix}_\1", text) for text in texts]
    return [text.replace("on database fastpubsub ", f'on database "{database}" ') for text in named]


def with_role(url: str, template: str) -> str:
    """The same database, with the rights that FASTPUBSUB_TEST_ROLE leaves."""
    run = normalise(template).database
    role = os.environ.get("FASTPUBSUB_TEST_ROLE")
    if not role:
        return url
    return normalise(url).set(username=f"{run}_{role}", password=run).render_as_string(hide_password=False)


def roomy_folder() -> Path:
    is_roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    return MEMORY if is_roomy else Path(tempfile.gettempdir())


def remove_left_behind(base: Path) -> None:
    """The servers of runs that were killed. What is younger may be about to start."""
    for data in base.glob(f"{PREFIX}-*"):
        with suppress(EmbeddedError, OSError):
            if time.time() - data.stat().st_mtime > YOUNG_SECONDS:
                with locked(data):
                    stop_left_behind(data / "cluster")
                    shutil.rmtree(data)


class Databases:
    """Clones of the template, for one process: made while the test before runs, dropped while the next one does."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._thread = ThreadPoolExecutor(1)
        self._connection: psycopg.Connection | None = None
        self._next: Future[str] | None = None
        self._drops: list[Future[None]] = []

    def take(self) -> str:
        ready, self._next = self._next or self._thread.submit(self._clone), self._thread.submit(self._clone)
        return ready.result()

    def drop(self, url: str) -> None:
        self._drops.append(self._thread.submit(self._drop, url))

    def close(self) -> None:
        if self._next is not None:
            self.drop(self._next.result())
        self._thread.shutdown()
        for drop in self._drops:
            drop.result()
        if self._connection is not None:
            self._connection.close()

    def _clone(self) -> str:
        return clone(self._template, unique_name(self._template), self._connected())

    def _drop(self, url: str) -> None:
        drop(url, self._connected())

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = psycopg.connect(libpq(with_database(self._template, "postgres")), autocommit=True)
        return self._connection


def unique_name(template: str) -> str:
    return f"{normalise(template).database}_{uuid.uuid4().hex[:12]}"


def clone(template: str, name: str, connection: psycopg.Connection | None = None) -> str:
    """A new database like the template, on the same server; `connection` is one to its database `postgres`."""
    if connection is None:
        with psycopg.connect(libpq(with_database(template, "postgres")), autocommit=True) as connection:
            return clone(template, name, connection)
    if spread_databases.are_wanted():
        spread_databases.clone(template, name)
        return with_database(template, name)
    # Half the work of writing each page to the WAL; before 15 it is the only way, and has no name.
    strategy = " strategy file_copy" if connection.info.server_version >= 150_000 else ""
    create = sql.SQL(f"create database {{}} template {{}}{strategy}")
    connection.execute(create.format(sql.Identifier(name), sql.Identifier(normalise(template).database or "")))
    return with_database(template, name)


def drop(url: str, connection: psycopg.Connection | None = None) -> None:
    refuse_foreign(url)
    if connection is None:
        with psycopg.connect(libpq(with_database(url, "postgres")), autocommit=True) as connection:
            return drop(url, connection)
    if spread_databases.are_wanted():
        spread_databases.drop(url, normalise(url).database or "")
        return None
    name = sql.Identifier(normalise(url).database or "")
    connection.execute(sql.SQL("drop database {} with (force)").format(name))
    return None


def execute(url: str, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute(statement)


def refuse_foreign(url: str) -> None:
    name = normalise(url).database or ""
    if not name.startswith(PREFIX):
        raise RuntimeError(f"tests use only databases named {PREFIX}...: create one on that server, not {name!r}")


def with_database(url: str, name: str) -> str:
    return normalise(url).set(database=name).render_as_string(hide_password=False)


def libpq(url: str) -> str:
    """The same URL for psycopg."""
    parsed: URL = normalise(url)
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Startup and shutdown in one task, as a server does it; a fixture's two halves run in two."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, to_app.get, from_app.put))
    try:
        await ask(task, to_app, from_app, "lifespan.startup")
        yield
        await ask(task, to_app, from_app, "lifespan.shutdown")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(
    task: asyncio.Task[None], to_app: asyncio.Queue[dict[str, Any]], from_app: asyncio.Queue[Any], event: str
) -> None:
    await to_app.put({"type": event})
    answer = asyncio.create_task(from_app.get())
    await asyncio.wait([answer, task], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        await task
    elif answer.result()["type"] != f"{event}.complete":
        raise RuntimeError(f"{event} failed: {answer.result().get('message')}")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application in this process."""
    from fastpubsub.api.app import create_app

    app = create_app(settings)
    async with lifespan(app):
        yield app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    # From another machine: this one may read the metrics.
    transport = httpx.ASGITransport(app, client=("192.0.2.9", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://fastpubsub")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to an application in this process."""
    async with running(settings) as app, client_of(app) as client:
        yield client


PATIENT: dict[str, Any] = {
    # The server of the tests may run without fsync, and readiness would refuse it.
    "database_require_durability": False,
    # Where many ask at once on a busy machine, the last of them waits longer than the two seconds of the default.
    "database_pool_timeout_seconds": 20.0,
    # Tests hold locks until they have seen who waits for them.
    "database_lock_timeout_seconds": 9.0,
}
"""Settings of all servers and applications of the tests, unless they give others."""


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Ours without any FASTPUBSUB_ variable, and the given settings: `api_port=1` → FASTPUBSUB_API_PORT=1."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTPUBSUB_")}
    given = {f"FASTPUBSUB_{name.upper()}": text_of(value) for name, value in settings.items() if value is not None}
    return inherited | {f"FASTPUBSUB_{name.upper()}": text_of(value) for name, value in PATIENT.items()} | given


def text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


PORTS = range(11_000, 32_000)
"""Below those that the kernel gives away: nobody gets one of these before the server that it was meant for has it.

And above 10080, which browsers refuse.
"""


def own_ports() -> Iterator[int]:
    """Each process of a run has a part of its own, and gives each port once before it begins again."""
    part = len(PORTS) // MAX_PROCESSES
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % MAX_PROCESSES
    mine = PORTS[worker * part : (worker + 1) * part]
    start = random.SystemRandom().randrange(part)
    return itertools.cycle([*mine[start:], *mine[:start]])


_ports = own_ports()


def free_port() -> int:
    while True:
        port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Server:
    """A `fastpubsub` process that serves."""

    process: subprocess.Popen[bytes] | warm.Process
    base_url: str
    log: Path
    exit_code: int | None = field(default=None, init=False)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._is_ready():
                return
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"the server ended with {self.process.wait(0.02)}:\n{self.output()}")
        raise AssertionError(f"the server was not ready after {START_SECONDS} s:\n{self.output()}")

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.base_url.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", "/readiness")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        if self.exit_code is None:
            self.process.send_signal(number)
            try:
                self.exit_code = self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise AssertionError(f"the server did not stop within {START_SECONDS} s:\n{self.output()}") from None
        return self.exit_code

    def kill(self) -> None:
        """All of its processes, with SIGKILL; the last of them keeps the port."""
        workers = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.exit_code = self.process.wait()
        deadline = time.monotonic() + START_SECONDS
        while not all(is_over(worker) for worker in workers):
            assert time.monotonic() < deadline, "they do not end"
            time.sleep(0.01)

    def output(self) -> str:
        """Standard output and error so far."""
        return self.log.read_text(errors="replace")


def start_server(
    arguments: list[str],
    folder: Path,
    settings: Mapping[str, object],
    *,
    command: Sequence[str | Path] = (),
    port: int | None = None,
) -> Server:
    """In a folder of its own, so that no `.env` is read; `command` is one to run instead of a warm `fastpubsub`."""
    port = port or int(str(settings.get("api_port") or free_port()))
    log = folder / f"server-{port}.log"
    env = environment({"api_host": "127.0.0.1", "api_port": port, **settings})
    process: subprocess.Popen[bytes] | warm.Process
    with log.open("ab") as output:
        if command:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        else:
            process = warm.Process(arguments, cwd=folder, env=env, stdout=output, stderr=output)
    return Server(process, f"http://127.0.0.1:{port}", log)
