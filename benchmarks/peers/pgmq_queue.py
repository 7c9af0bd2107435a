"""pgmq with its asynchronous Python client; the SQL comes with that."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

import asyncpg
import psycopg
from pgmq.async_queue import PGMQueue
from pgmq.install import get_embedded_install_sql, get_embedded_sql_version

from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.peers.postgres import Postgres

LEASE_SECONDS = 60
CONNECTIONS = 16


def start(folder: Path) -> Postgres:
    postgres = Postgres(folder)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(get_embedded_install_sql().encode())
    return postgres


class Pgmq:
    def __init__(self, pool: asyncpg.Pool, queue: str) -> None:
        self._pool, self._queue = pool, queue
        self._client = PGMQueue(pool=pool, init_extension=False)

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        opened = cls(await asyncpg.create_pool(url, min_size=1, max_size=CONNECTIONS), queue)
        await opened._client.create_queue(queue)
        return opened

    async def close(self) -> None:
        await self._pool.close()

    async def publish(self, payload: Payload) -> None:
        await self._client.send(self._queue, payload)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await self._client.send_batch(self._queue, list(payloads))

    async def handle(self, concurrency: int, handler: Handler) -> None:
        while True:
            messages = await self._client.read_with_poll(self._queue, vt=LEASE_SECONDS, qty=concurrency)
            await asyncio.gather(*(handler(message.message) for message in messages))
            if messages:
                await self._client.delete_batch(self._queue, [message.msg_id for message in messages])

    async def unsettled(self) -> int:
        return int((await self._client.metrics(self._queue)).queue_length)

    async def drop(self) -> None:
        await self._client.drop_queue(self._queue)


PEER = Peer(
    "pgmq",
    Pgmq,
    start,
    "the commit of PostgreSQL, `fsync` and `synchronous_commit` on; consumers ask every 100 ms, as by default",
    versions=lambda: f"{get_embedded_sql_version()} with pgmq {version('pgmq')}",
)
