"""What a process does with a client: publish, publish at a constant rate, handle. Each function opens and closes it."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError
from benchmarks.payloads import FIRST, payload
from benchmarks.peers.peer import Client, Payload

BATCH = 100
BATCHES_AT_ONCE = 4
PACED_AT_ONCE = 64
SILENCE_SECONDS = 20.0
"""Without any message, after which a consumer has lost some."""
LEAD_SECONDS = 0.1
SETTLE_SECONDS = 0.2
"""For the acknowledgements of the last messages."""


@dataclass(frozen=True)
class Target:
    client: type[Client]
    url: str
    queue: str
    size: int
    """Of a payload, in bytes."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        client = await self.client.open(self.url, self.queue)
        try:
            yield client
        finally:
            await client.close()

    def payload(self, number: int) -> Payload:
        return json.loads(payload(number, self.size))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Load:
    messages: int
    seconds: float
    cpu_seconds: float
    """Of the client's process."""
    broker_seconds: float = 0.0
    """CPU seconds of the broker's."""

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


async def publish(target: Target, at_once: int, seconds: float) -> Load:
    """One message in a call."""
    message = target.payload(0)

    async def call(client: Client) -> int:
        await client.publish(message)
        return 1

    return await _closed_loops(target, call, at_once, seconds)


async def publish_batches(target: Target, at_once: int, seconds: float) -> Load:
    messages = [target.payload(number) for number in range(BATCH)]

    async def call(client: Client) -> int:
        await client.publish_batch(messages)
        return BATCH

    return await _closed_loops(target, call, at_once, seconds)


async def fill(target: Target, count: int, seconds: float = 600.0) -> int:
    """Messages 0, 1, … in batches; fewer when the time is up."""
    deadline = time.monotonic() + seconds
    firsts = iter(range(0, count, BATCH))
    done = 0

    async def work(client: Client) -> None:
        nonlocal done
        for first in firsts:
            batch = [target.payload(number) for number in range(first, min(first + BATCH, count))]
            await client.publish_batch(batch)
            done += len(batch)
            if time.monotonic() > deadline:
                return

    async with target.open() as client:
        await asyncio.gather(*(work(client) for _ in range(BATCHES_AT_ONCE)))
    return done


async def handle(target: Target, count: int, concurrency: int) -> Load:
    """The messages 0, 1, …, which are there; each has to come, and all to be acknowledged in the end."""
    arrivals = Arrivals(range(count))
    async with target.open() as client:
        started = time.process_time()
        await _handle(client, concurrency, arrivals)
        cpu_seconds = time.process_time() - started
        await _all_settled(client)
    # The first ones came in one batch and took no time that is known.
    first, *_, last = sorted(arrivals.times.values())
    later = sum(moment > first for moment in arrivals.times.values())
    return Load(count, (last - first) * count / later, cpu_seconds)


async def arrive(target: Target, count: int, concurrency: int) -> dict[int, float]:
    """Another process paces so many: by number, when each came by `time.perf_counter`."""
    arrivals = Arrivals(range(count + 1))
    async with target.open() as client:
        await _handle(client, concurrency, arrivals)
        await _all_settled(client)
    return arrivals.times


async def pace(target: Target, rate: float, count: int) -> list[float]:
    """An open loop: by number, when each message was due. It begins when a consumer has handled one more message."""
    numbers = itertools.count()

    async def work(client: Client) -> None:
        while (number := next(numbers)) < count:
            message = target.payload(number)
            await asyncio.sleep(due[number] - time.perf_counter())
            await client.publish(message)

    async with target.open() as client:
        await client.publish(target.payload(count))
        await _all_settled(client)
        begin = time.perf_counter() + LEAD_SECONDS
        due = [begin + number / rate for number in range(count)]
        await asyncio.gather(*(work(client) for _ in range(PACED_AT_ONCE)))
    return due


async def drop(target: Target) -> None:
    async with target.open() as client:
        await client.drop()


class Arrivals:
    def __init__(self, wanted: Iterable[int]) -> None:
        self.times: dict[int, float] = {}
        self._missing = set(wanted)
        self.is_complete = asyncio.Event()

    async def handler(self, payload: Payload) -> None:
        number = payload["n"] - FIRST
        self.times.setdefault(number, time.perf_counter())
        self._missing.discard(number)
        if not self._missing:
            self.is_complete.set()

    async def wait(self) -> None:
        while not self.is_complete.is_set():
            before = len(self.times)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_complete.wait(), SILENCE_SECONDS)
            if len(self.times) == before:
                raise BenchmarkError(f"{len(self._missing)} messages did not arrive")


async def _handle(client: Client, concurrency: int, arrivals: Arrivals) -> None:
    consuming = asyncio.create_task(client.handle(concurrency, arrivals.handler))
    waiting = asyncio.create_task(arrivals.wait())
    done, _ = await asyncio.wait((consuming, waiting), return_when=asyncio.FIRST_COMPLETED)
    if waiting in done:
        await asyncio.sleep(SETTLE_SECONDS)
    for task in (consuming, waiting):
        task.cancel()
    await asyncio.wait((consuming, waiting))
    if not consuming.cancelled() and (error := consuming.exception()):
        raise error
    waiting.result()


async def _all_settled(client: Client) -> None:
    deadline = time.monotonic() + SILENCE_SECONDS
    while left := await client.unsettled():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{left} messages were handled and are not acknowledged")
        await asyncio.sleep(0.1)


async def _closed_loops(target: Target, call: Callable[[Client], Awaitable[int]], at_once: int, seconds: float) -> Load:
    async with target.open() as client:
        await asyncio.gather(*(call(client) for _ in range(at_once)))
        started, used = time.perf_counter(), time.process_time()

        async def loop() -> int:
            messages = 0
            while time.perf_counter() < started + seconds:
                messages += await call(client)
            return messages

        messages = sum(await asyncio.gather(*(loop() for _ in range(at_once))))
        return Load(messages, time.perf_counter() - started, time.process_time() - used)
