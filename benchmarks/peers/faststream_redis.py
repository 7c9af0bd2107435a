"""FastStream on Redis Streams."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Self

from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from benchmarks.peers import redis_streams
from benchmarks.peers.peer import Handler, Payload, Peer, a_few_at_once


class FastStream:
    def __init__(self, url: str, queue: str) -> None:
        self._url, self._queue = url, queue
        self._broker = RedisBroker(url, logger=None)
        self._redis = Redis.from_url(url)

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        opened = cls(f"redis://{url}", queue)
        await redis_streams.create(opened._redis, queue)
        await opened._broker.connect()
        return opened

    async def close(self) -> None:
        await self._broker.stop()
        await self._redis.aclose()

    async def publish(self, payload: Payload) -> None:
        await self._broker.publish(payload, stream=self._queue)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        """It has batches for lists only."""
        await a_few_at_once(self.publish, payloads)

    async def handle(self, concurrency: int, handler: Handler) -> None:
        async def handle(payload: dict) -> None:  # type: ignore[type-arg] # as its users write it
            await handler(payload)

        stream = StreamSub(self._queue, group=redis_streams.GROUP, consumer="worker", max_records=concurrency)
        broker = RedisBroker(self._url, logger=None)
        broker.subscriber(stream=stream, max_workers=concurrency)(handle)
        await broker.start()
        try:
            await asyncio.Event().wait()
        finally:
            await broker.stop()

    async def unsettled(self) -> int:
        return await redis_streams.unsettled(self._redis, self._queue)

    async def drop(self) -> None:
        await self._redis.delete(self._queue)


PEER = Peer(
    "FastStream on Redis",
    FastStream,
    redis_streams.start,
    "as Redis Streams",
    shares="redis",
    versions=lambda: version("faststream"),
)
