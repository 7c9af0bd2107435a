"""taskiq on Redis Streams: a call of a task is the message."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Self

from redis.asyncio import Redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks.errors import BenchmarkError
from benchmarks.peers import redis_streams
from benchmarks.peers.peer import Handler, Payload, Peer, a_few_at_once


class Taskiq:
    def __init__(self, url: str, queue: str) -> None:
        self._queue = queue
        self._redis = Redis.from_url(url)
        self._handler: Handler | None = None
        self._broker = RedisStreamBroker(url, queue_name=queue, consumer_group_name=redis_streams.GROUP)
        self._task = self._broker.task(task_name="handle")(self._made())

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        opened = cls(f"redis://{url}", queue)
        await redis_streams.create(opened._redis, queue)
        await opened._broker.startup()
        return opened

    async def close(self) -> None:
        await self._broker.shutdown()
        await self._redis.aclose()

    async def publish(self, payload: Payload) -> None:
        await self._task.kiq(payload)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        """It has no batches."""
        await a_few_at_once(self.publish, payloads)

    async def handle(self, concurrency: int, handler: Handler) -> None:
        self._handler = handler
        await run_receiver_task(self._broker, max_async_tasks=concurrency)

    async def unsettled(self) -> int:
        return await redis_streams.unsettled(self._redis, self._queue)

    async def drop(self) -> None:
        await self._redis.delete(self._queue)

    def _made(self) -> Callable[..., Awaitable[None]]:
        async def handle(payload: dict) -> None:  # type: ignore[type-arg] # as its users write it
            if self._handler is None:
                raise BenchmarkError("a task came before there was a handler")
            await self._handler(payload)

        return handle


PEER = Peer(
    "taskiq on Redis",
    Taskiq,
    redis_streams.start,
    "as Redis Streams; no result backend",
    shares="redis",
    versions=lambda: version("taskiq"),
)
