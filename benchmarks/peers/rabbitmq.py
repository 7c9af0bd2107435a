"""RabbitMQ with aio-pika: a quorum queue and publisher confirms."""

import asyncio
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from aio_pika import DeliveryMode, Message, connect
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue

from benchmarks.errors import BenchmarkError
from benchmarks.peers import programs
from benchmarks.peers.peer import Handler, Payload, Peer
from benchmarks.stack import HOST, START_SECONDS, free_port

FOLDERS = ("/usr/lib/rabbitmq/bin",)  # the one on the path insists on the accounts and folders of the system
QUORUM = {"x-queue-type": "quorum"}


class RabbitMQ(programs.Program):
    def __init__(self, folder: Path) -> None:
        program = programs.find("rabbitmq-server", "rabbitmq-server", *FOLDERS)
        port = free_port()
        self._environment = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # it can be ended while it knows a node
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        }
        super().__init__(folder, port, [program], self._environment)

    def stop(self) -> None:
        """With the port mapper, which it started as a daemon."""
        super().stop()
        subprocess.run(  # noqa: S603 - ours, it is found by its port
            [programs.find("epmd", "erlang-base"), "-kill"],
            env={**self._environment, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
            timeout=START_SECONDS,
        )


class AioPika:
    def __init__(self, connection: AbstractConnection, queue: AbstractQueue) -> None:
        self._connection, self._queue = connection, queue

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        connection = await connect(f"amqp://guest:guest@{url}/")
        channel = await connection.channel(publisher_confirms=True)
        return cls(connection, await channel.declare_queue(queue, durable=True, arguments=QUORUM))

    async def close(self) -> None:
        await self._connection.close()

    async def publish(self, payload: Payload) -> None:
        message = Message(json.dumps(payload).encode(), delivery_mode=DeliveryMode.PERSISTENT)
        await self._queue.channel.default_exchange.publish(message, self._queue.name)

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        await asyncio.gather(*map(self.publish, payloads))

    async def handle(self, concurrency: int, handler: Handler) -> None:
        async def callback(message: AbstractIncomingMessage) -> None:
            async with message.process():
                await handler(json.loads(message.body))

        channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=concurrency)
        queue = await channel.get_queue(self._queue.name)
        tag = await queue.consume(callback)
        try:
            await asyncio.Event().wait()
        finally:
            await queue.cancel(tag)
            await channel.close()

    async def unsettled(self) -> int:
        """Once nobody consumes, all that was not acknowledged is ready."""
        declared = await self._queue.declare()
        if declared.message_count is None:
            raise BenchmarkError("RabbitMQ does not say how many messages a queue has")
        return int(declared.message_count)

    async def drop(self) -> None:
        await self._queue.delete(if_unused=False, if_empty=False)


PEER = Peer(
    "RabbitMQ",
    AioPika,
    RabbitMQ,
    "a quorum queue of one member, persistent messages, publisher confirms: confirmed when synced to its log",
    versions=lambda: programs.version("dpkg-query", "--show", "--showformat=${Version}", "rabbitmq-server"),
)
