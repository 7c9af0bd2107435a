"""Redis Streams with redis-py: a stream is the queue, a consumer group reads it."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from redis.asyncio import Redis

from benchmarks.peers import programs
from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.stack import HOST, free_port

GROUP = "workers"
BLOCK_MILLISECONDS = 2000


def start(folder: Path) -> programs.Program:
    program, port = programs.find("redis-server", "redis-server"), free_port()
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return programs.Program(
        folder, port, [program, "--bind", HOST, "--port", str(port), "--dir", str(folder), *durable]
    )


async def create(redis: Redis, queue: str) -> None:
    """Consumers begin with the first message."""
    if not await redis.exists(queue):
        await redis.xgroup_create(queue, GROUP, id="0", mkstream=True)


async def unsettled(redis: Redis, queue: str) -> int:
    (group,) = await redis.xinfo_groups(queue)
    return int(group["pending"]) + int(group["lag"])


class RedisStreams:
    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis, self._queue = redis, queue

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        redis = Redis.from_url(f"redis://{url}")
        await create(redis, queue)
        return cls(redis, queue)

    async def close(self) -> None:
        await self._redis.aclose()

    async def publish(self, payload: Payload) -> None:
        await self._redis.xadd(self._queue, {"payload": json.dumps(payload)})

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for payload in payloads:
                pipeline.xadd(self._queue, {"payload": json.dumps(payload)})
            await pipeline.execute()

    async def handle(self, concurrency: int, handler: Handler) -> None:
        streams = {self._queue: ">"}
        while True:
            found = await self._redis.xreadgroup(GROUP, "worker", streams, count=concurrency, block=BLOCK_MILLISECONDS)
            entries = found[0][1] if found else []
            await asyncio.gather(*(handler(json.loads(fields[b"payload"])) for _, fields in entries))
            if entries:
                await self._redis.xack(self._queue, GROUP, *(id_ for id_, _ in entries))

    async def unsettled(self) -> int:
        return await unsettled(self._redis, self._queue)

    async def drop(self) -> None:
        await self._redis.delete(self._queue)


PEER = Peer(
    "Redis Streams",
    RedisStreams,
    start,
    "`appendonly yes`, `appendfsync always`: XADD and XACK are answered when they are synced to disk",
    versions=lambda: programs.version(programs.find("redis-server", "redis-server"), "--version").split()[2],
)
