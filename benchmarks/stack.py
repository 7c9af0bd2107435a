"""What is measured: an embedded PostgreSQL as it comes, durable, and real servers, each with one worker."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg
from psycopg import sql

from benchmarks.errors import BenchmarkError
from fastpubsub.database import migrations
from fastpubsub.database.urls import normalise
from fastpubsub.embedded import EmbeddedPostgres

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
START_SECONDS = 120.0
TEMPLATE = "fastpubsub_benchmark"

# With the defaults nothing would be trimmed before an hour has passed, and a server that runs for longer than that pays
# for trimming all the time. So whatever is settled is trimmed after 5 seconds, and steadily instead of in bursts.
TRIMMING = {"cleanup_acked_messages_older_than_seconds": 5, "trim_interval_seconds": 1}


class Cluster:
    """A PostgreSQL of its own in a new folder, with one migrated database that others are cloned from."""

    def __init__(self, folder: Path) -> None:
        self.postgres = EmbeddedPostgres(folder / "postgresql")

    def __enter__(self) -> Self:
        self.postgres.start()
        self._execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        migrations.upgrade(self.postgres.url(TEMPLATE))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.postgres.stop()

    def run_in(self, megabytes: int) -> None:
        """Writes so much: a database that has run for a while reuses its WAL files instead of making new ones."""
        with self.connect() as connection:
            connection.execute("create table public.run_in (filler text)")
            for _ in range(megabytes):
                connection.execute("insert into public.run_in select repeat('x', 1800) from generate_series(1, 550)")
            connection.execute("drop table public.run_in")
            connection.execute("checkpoint")

    def create_database(self) -> str:
        """Its URL."""
        name = f"{TEMPLATE}_{uuid.uuid4().hex[:8]}"
        self._execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE)),
            sql.SQL("checkpoint"),
        )
        return self.postgres.url(name)

    def drop_database(self, url: str) -> None:
        name = normalise(url).database or ""
        self._execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def connect(self, url: str | None = None) -> psycopg.Connection[Any]:
        parsed = normalise(url or self.postgres.url()).set(drivername="postgresql")
        conninfo = parsed.render_as_string(hide_password=False)
        return psycopg.connect(conninfo, autocommit=True, application_name="benchmark")

    def program(self, name: str) -> Path:
        """One of those that came with this PostgreSQL."""
        return self.postgres.binaries / name

    @property
    def process(self) -> psutil.Process:
        if self.postgres.pid is None:
            raise BenchmarkError("the PostgreSQL of the benchmark is not running any more")
        return psutil.Process(self.postgres.pid)

    def _execute(self, *statements: sql.SQL | sql.Composed) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)


class Server:
    """A process with one worker, that answers; its log goes to a file, as that of a service does."""

    def __init__(self, name: str, command: list[str], folder: Path, settings: Mapping[str, object]) -> None:
        self.port = free_port()
        self.address = f"{HOST}:{self.port}"
        self.log = folder / f"{name}-{self.port}.log"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own server
                command,
                cwd=folder,  # no `.env` is read
                env=environment({"api_host": HOST, "api_port": self.port, "api_num_workers": 1, **settings}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.process = psutil.Process(self._process.pid)

    @property
    def worker(self) -> psutil.Process:
        return self.process.children()[0]

    def wait_until_it_answers(self, path: str, status: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://{self.address}{path}", timeout=5).status_code == status:
                    return
            time.sleep(0.02)
        last_line = (self.log.read_text(errors="replace").strip() or "nothing").splitlines()[-1]
        self.stop()
        raise BenchmarkError(f"a server did not start, its log ends with: {last_line}")

    def stop(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.log.unlink(missing_ok=True)


def start_fastpubsub(folder: Path, database_url: str, settings: Mapping[str, object]) -> Server:
    """As in production: limits, metrics, a log line for each request, expiry and trimming."""
    command = [str(Path(sys.executable).with_name("fastpubsub")), "server"]
    server = Server("fastpubsub", command, folder, {"database_url": database_url, **TRIMMING, **settings})
    server.wait_until_it_answers("/readiness", 200)
    return server


def start_noop(folder: Path) -> Server:
    server = Server("noop", [sys.executable, "-m", "benchmarks.noop"], folder, {})
    server.wait_until_it_answers("/noop", 405)
    return server


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Ours without any FASTPUBSUB_ variable, and the given settings: `api_port=1` → FASTPUBSUB_API_PORT=1."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTPUBSUB_")}
    given = {f"FASTPUBSUB_{name.upper()}": str(value) for name, value in settings.items()}
    return inherited | {"PYTHONPATH": str(ROOT)} | given


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
