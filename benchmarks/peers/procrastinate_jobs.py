"""Procrastinate: a job is the message, a task its handler."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.schema import SchemaManager

from benchmarks.errors import BenchmarkError
from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.peers.postgres import Postgres

CONNECTIONS = 16


def start(folder: Path) -> Postgres:
    postgres = Postgres(folder)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(SchemaManager.get_schema().encode())
    return postgres


class Procrastinate:
    def __init__(self, app: App, queue: str) -> None:
        self._app, self._queue = app, queue
        self._handler: Handler | None = None
        self._task = app.task(name="handle", queue=queue)(self._call)

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        app = App(connector=PsycopgConnector(conninfo=url, max_size=CONNECTIONS))
        await app.open_async()
        return cls(app, queue)

    async def close(self) -> None:
        await self._app.close_async()

    async def publish(self, payload: Payload) -> None:
        await self._task.defer_async(**payload)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await self._task.batch_defer_async(*payloads)

    async def handle(self, concurrency: int, handler: Handler) -> None:
        self._handler = handler
        await self._app.run_worker_async(
            queues=[self._queue], concurrency=concurrency, delete_jobs="always", install_signal_handlers=False
        )

    async def unsettled(self) -> int:
        query = "select count(*) as jobs from procrastinate_jobs where queue_name = %(queue)s"
        return int((await self._app.connector.execute_query_one_async(query, queue=self._queue))["jobs"])

    async def drop(self) -> None:
        await self._app.connector.execute_query_async(
            "delete from procrastinate_jobs where queue_name = %(queue)s", queue=self._queue
        )

    async def _call(self, **payload: object) -> None:
        if self._handler is None:
            raise BenchmarkError("a job came before there was a handler")
        await self._handler(payload)


PEER = Peer(
    "Procrastinate",
    Procrastinate,
    start,
    'the commit of PostgreSQL, as above; finished jobs are deleted (`delete_jobs="always"`)',
    versions=lambda: version("procrastinate"),
)
