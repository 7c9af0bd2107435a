"""NATS JetStream with nats-py: a stream in files, a durable consumer that is pulled from."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import nats
from nats.aio.client import Client as Connection
from nats.errors import TimeoutError as NothingCame
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from benchmarks.peers import programs
from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.stack import HOST, free_port

CONSUMER = "workers"
WAIT_SECONDS = 2.0


def start(folder: Path) -> programs.Program:
    program, port = programs.find("nats-server", "nats-server"), free_port()
    arguments = ["--addr", HOST, "--port", str(port), "--jetstream", "--store_dir", str(folder / "jetstream")]
    return programs.Program(folder, port, [program, *arguments])


class JetStream:
    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection, self._queue = connection, queue
        self._stream = connection.jetstream()

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        opened = cls(await nats.connect(f"nats://{url}"), queue)
        stream = StreamConfig(name=queue, subjects=[queue], storage=StorageType.FILE)
        await opened._stream.add_stream(stream)
        consumer = ConsumerConfig(durable_name=CONSUMER, ack_policy=AckPolicy.EXPLICIT)
        await opened._stream.add_consumer(queue, consumer)
        return opened

    async def close(self) -> None:
        await self._connection.drain()

    async def publish(self, payload: Payload) -> None:
        await self._stream.publish(self._queue, json.dumps(payload).encode())

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await asyncio.gather(*map(self.publish, payloads))

    async def handle(self, concurrency: int, handler: Handler) -> None:
        pulled = await self._stream.pull_subscribe(self._queue, durable=CONSUMER)
        while True:
            with suppress(NothingCame):
                messages = await pulled.fetch(concurrency, timeout=WAIT_SECONDS)
                await asyncio.gather(*(handler(json.loads(message.data)) for message in messages))
                for message in messages:
                    await message.ack()

    async def unsettled(self) -> int:
        found = await self._stream.consumer_info(self._queue, CONSUMER)
        return (found.num_pending or 0) + (found.num_ack_pending or 0)

    async def drop(self) -> None:
        await self._stream.delete_stream(self._queue)


PEER = Peer(
    "NATS JetStream",
    JetStream,
    start,
    "a stream in files, confirmed when written and **not synced** (every 2 minutes): a power cut loses messages",
    versions=lambda: programs.version(programs.find("nats-server", "nats-server"), "--version").split()[-1],
)
