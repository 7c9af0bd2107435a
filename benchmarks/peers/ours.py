"""fastpubsub by its Python client: `AsyncClient.publish` or `publisher()`, and a `Worker`."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

import fastpubsub
from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.peers.postgres import Postgres
from benchmarks.stack import start_fastpubsub
from fastpubsub.client import AsyncClient, Worker


class Fastpubsub:
    """`fastpubsub server` with one worker, and its PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self._postgres = Postgres(folder)
        self.cluster = self._postgres.cluster
        try:
            self._server = start_fastpubsub(folder, self.cluster.create_database(), {})
        except BaseException:
            self._postgres.stop()
            raise
        self.url = f"http://{self._server.address}"

    @property
    def processes(self) -> list[psutil.Process]:
        return [self._server.process, *self._postgres.processes]

    def stop(self) -> None:
        self._server.stop()
        self._postgres.stop()


class Direct:
    def __init__(self, url: str, queue: str) -> None:
        self._url, self._queue = url, queue
        self._client = AsyncClient(url)

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        opened = cls(url, queue)
        await opened._client.create_topic(queue, exist_ok=True)
        await opened._client.create_subscription(queue, queue, exist_ok=True)
        return opened

    async def close(self) -> None:
        await self._client.close()

    async def publish(self, payload: Payload) -> None:
        await self._client.publish(self._queue, payload)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await self._client.publish(self._queue, *payloads)

    async def handle(self, concurrency: int, handler: Handler) -> None:
        async def handle(payload: dict) -> None:  # type: ignore[type-arg] # as its users write it
            await handler(payload)

        worker = Worker(self._url, concurrency=concurrency)
        worker.subscriber(self._queue)(handle)
        gc.collect()
        gc.freeze()  # as `Worker.run()` does, and `fastpubsub worker`
        await worker.serve()

    async def unsettled(self) -> int:
        metrics = await self._client.metrics(self._queue)
        return metrics.available + metrics.delivered

    async def drop(self) -> None:
        await self._client.delete_subscription(self._queue)
        await self._client.delete_topic(self._queue)


class Gathered(Direct):
    """The same by a publisher."""

    def __init__(self, url: str, queue: str) -> None:
        super().__init__(url, queue)
        self._publisher = self._client.publisher()

    async def close(self) -> None:
        await self._publisher.close()
        await super().close()

    async def publish(self, payload: Payload) -> None:
        await self._publisher.publish(self._queue, payload)


PEER = Peer(
    "fastpubsub",
    Direct,
    Fastpubsub,
    "the commit of PostgreSQL, `fsync` and `synchronous_commit` on",
    versions=lambda: fastpubsub.__version__,
)
PUBLISHER = Peer(
    "fastpubsub, `publisher()`", Gathered, Fastpubsub, "the same", shares="fastpubsub", publishes_only=True
)
