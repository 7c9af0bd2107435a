"""What the benchmark needs to know of a broker and of its client library: a module beside this one for each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import psutil

from benchmarks.meter import cpu_seconds

FEW = 16

Payload = dict[str, Any]
Handler = Callable[[Payload], Awaitable[None]]


class Broker(Protocol):
    """Running server processes."""

    url: str
    """Where clients find it; what it looks like only they know."""

    @property
    def processes(self) -> list[psutil.Process]:
        """Each of them with its children."""

    def stop(self) -> None: ...


class Client(Protocol):
    """One connection or pool of a process, used as its documentation shows it; JSON objects are what it carries."""

    @classmethod
    async def open(cls, url: str, queue: str) -> Self:
        """The queue exists from then on."""

    async def close(self) -> None: ...

    async def publish(self, payload: Payload) -> None:
        """Returns when the broker has confirmed it."""

    async def publish_batch(self, payloads: Sequence[Payload]) -> None:
        """In the fastest documented way; returns when all are confirmed."""

    async def handle(self, concurrency: int, handler: Handler) -> None:
        """Calls the handler and acknowledges what it returned from, until it is cancelled."""

    async def unsettled(self) -> int:
        """How many messages of the queue are not acknowledged."""

    async def drop(self) -> None:
        """The queue, with what is in it."""


@dataclass(frozen=True)
class Peer:
    name: str
    client: type[Client]
    start: Callable[[Path], Broker]
    durability: str
    """What a confirmed publish survives."""
    shares: str = ""
    """The name of the peer whose broker it uses."""
    publishes_only: bool = False
    versions: Callable[[], str] = field(default=lambda: "")


async def a_few_at_once(publish: Callable[[Payload], Awaitable[None]], payloads: Sequence[Payload]) -> None:
    """The batch of a library without batches: it has connections for so many calls."""
    waiting = iter(payloads)

    async def work() -> None:
        for payload in waiting:
            await publish(payload)

    await asyncio.gather(*(work() for _ in range(FEW)))


def cpu(broker: Broker) -> float:
    """Seconds that its processes have used so far."""
    return sum(map(cpu_seconds, broker.processes))


def memory(broker: Broker) -> int:
    """Bytes; what processes share counts once."""
    trees = [[process, *process.children(recursive=True)] for process in broker.processes]
    return sum(_memory(process) for tree in trees for process in tree)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0  # a backend that has ended
