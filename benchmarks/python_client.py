"""What users of our Python client get of the server's speed, beside bare sockets that send the same requests."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

from benchmarks import raw
from benchmarks.bench import Bench
from benchmarks.pairs import Arm, Spread, ratio
from benchmarks.payloads import LARGE, batch, payload
from benchmarks.results import Measure
from benchmarks.stack import HOST
from fastpubsub.client import AsyncClient, Client

AT_ONCE = 16
WAITING = (1, 16, 500)
IN_FLIGHT = (1, 4)
"""How many requests carry the messages of all callers, when they are gathered by hand."""

_BODY = batch(1, LARGE)
_MESSAGE = json.loads(payload(0, LARGE))
_keys = itertools.count()

AsyncCall = Callable[[], Awaitable[int]]
"""Answers how many messages it has published."""

Call = Callable[[], int]
"""The same."""


def client_publish(bench: Bench) -> list[Measure]:
    """One asyncio process, one message in a request."""
    measures = []
    with bench.service() as service:
        target = Target(service.server.port, service.create_topic().id)
        for at_once in (1, AT_ONCE):
            ours, bares = Tasks(target.clients(at_once)), Tasks(target.sockets(at_once))
            client, bare = bench.rounds(ours, bares)
            name = f"AsyncClient.publish ÷ a raw socket, {at_once} at once"
            measures.append(Measure(name, 0.7, 0.85, ratio(client, bare), _rates(client, bare)))
            if at_once > 1:
                measures.append(_stalls(ours, bares))
    return measures


def client_threads(bench: Bench) -> list[Measure]:
    """Threads that share a client, one message in a request."""
    measures = []
    with bench.service() as service:
        target = Target(service.server.port, service.create_topic().id)
        for threads in (1, AT_ONCE):
            client, bare = bench.rounds(
                partial(_threads, target.client_of_threads, threads),
                partial(_threads, target.socket_of_a_thread, threads),
            )
            name = f"Client.publish ÷ a raw socket, threads: {threads}"
            measures.append(Measure(name, 0.5, 0.7, ratio(client, bare), _rates(client, bare)))
    return measures


def client_publisher(bench: Bench) -> list[Measure]:
    """Callers that wait for their ids and then publish the next, against the best way to gather them by hand."""
    measures = []
    with bench.service() as service:
        target = Target(service.server.port, service.create_topic().id)
        for waiting in WAITING:
            ways: list[Arm] = [Tasks(target.groups(waiting, count)) for count in IN_FLIGHT if count < waiting]
            if waiting <= AT_ONCE:
                ways.append(Tasks(target.clients(waiting)))
            gathered, *fixed = bench.rounds(Tasks(target.publishers(waiting)), *ways)
            best = max(fixed, key=lambda way: way.median)
            name = f"publisher() ÷ the best fixed way, {waiting} waiting"
            measures.append(Measure(name, 0.9, 1.0, ratio(gathered, best), _rates(gathered, best)))
    return measures


Prepare = Callable[[AsyncExitStack], Awaitable[list[AsyncCall]]]


@dataclass
class Tasks:
    """An arm: each call again and again, all of them at once."""

    prepare: Prepare
    longest: list[float] = field(default_factory=list)
    """Seconds that one call took, of each round and before them of the warm-up."""

    def __call__(self, seconds: float) -> float:
        return asyncio.run(self._run(seconds))

    async def _run(self, seconds: float) -> float:
        async with AsyncExitStack() as stack:
            calls = await self.prepare(stack)
            await asyncio.gather(*(call() for call in calls))
            started = time.perf_counter()
            is_over = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, is_over.set)
            loops = await asyncio.gather(*(_repeat(call, is_over) for call in calls))
            self.longest.append(max(slowest for _, slowest in loops))
            return sum(messages for messages, _ in loops) / (time.perf_counter() - started)


@dataclass(frozen=True)
class Target:
    """The ways to publish to a topic."""

    port: int
    topic_id: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def request(self) -> bytes:
        headers = ["Prefer: return=representation", f"Idempotency-Key: benchmark-{next(_keys)}"]
        return raw.publish(self.topic_id, _BODY, headers)

    def clients(self, count: int) -> Prepare:
        async def prepare(stack: AsyncExitStack) -> list[AsyncCall]:
            client = await stack.enter_async_context(AsyncClient(self.url))

            async def call() -> int:
                return len(await client.publish(self.topic_id, _MESSAGE))

            return [call] * count

        return prepare

    def groups(self, waiting: int, count: int) -> Prepare:
        """By hand: so many callers in so many groups, and the last one of a group publishes for all of it."""

        async def prepare(stack: AsyncExitStack) -> list[AsyncCall]:
            client = await stack.enter_async_context(AsyncClient(self.url))
            groups = [Group(client, self.topic_id, waiting // count) for _ in range(count)]
            return [group.publish for group in groups for _ in range(group.size)]

        return prepare

    def publishers(self, count: int) -> Prepare:
        async def prepare(stack: AsyncExitStack) -> list[AsyncCall]:
            client = await stack.enter_async_context(AsyncClient(self.url))
            publisher = await stack.enter_async_context(client.publisher())

            async def call() -> int:
                await publisher.publish(self.topic_id, _MESSAGE)
                return 1

            return [call] * count

        return prepare

    def sockets(self, count: int) -> Prepare:
        async def prepare(stack: AsyncExitStack) -> list[AsyncCall]:
            return [await self._socket(stack) for _ in range(count)]

        return prepare

    async def _socket(self, stack: AsyncExitStack) -> AsyncCall:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        stack.callback(writer.close)

        async def call() -> int:
            writer.write(self.request)
            await reader.readexactly(_length(await reader.readuntil(b"\r\n\r\n")))
            return 1

        return call

    def client_of_threads(self, stack: ExitStack, count: int) -> list[Call]:
        client = stack.enter_context(Client(self.url))
        return [lambda: len(client.publish(self.topic_id, _MESSAGE))] * count

    def socket_of_a_thread(self, stack: ExitStack, count: int) -> list[Call]:
        def connect() -> Call:
            connection = stack.enter_context(closing(socket.create_connection((HOST, self.port))))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def call() -> int:
                connection.sendall(self.request)
                head, end, body = connection.recv(65536).partition(b"\r\n\r\n")
                while len(body) < _length(head + end):
                    body += connection.recv(65536)
                return 1

            return call

        return [connect() for _ in range(count)]


@dataclass
class Group:
    client: AsyncClient
    topic_id: str
    size: int
    waiting: list[asyncio.Future[int]] = field(default_factory=list)

    async def publish(self) -> int:
        self.waiting.append(asyncio.get_running_loop().create_future())
        if len(self.waiting) < self.size:
            return await self.waiting[-1]
        answered, self.waiting = self.waiting[:-1], []
        await self.client.publish(self.topic_id, *[_MESSAGE] * self.size)
        for future in answered:
            future.set_result(1)
        await asyncio.sleep(0)  # with the others: one that saw the end later would wait for them for ever
        return 1


async def _repeat(call: AsyncCall, is_over: asyncio.Event) -> tuple[int, float]:
    messages, slowest = 0, 0.0
    while not is_over.is_set():
        before = time.perf_counter()
        messages += await call()
        slowest = max(slowest, time.perf_counter() - before)
    return messages, slowest


def _threads(prepare: Callable[[ExitStack, int], list[Call]], count: int, seconds: float) -> float:
    """Messages per second of so many threads."""
    with ExitStack() as stack:
        calls = prepare(stack, count)
        done = [call() - 1 for call in calls]
        started = time.perf_counter()

        def work(place: int) -> None:
            while time.perf_counter() < started + seconds:
                done[place] += calls[place]()

        threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - started)


def _stalls(ours: Tasks, bares: Tasks) -> Measure:
    longest, of_bare = (Spread([seconds * 1000 for seconds in tasks.longest[1:]]) for tasks in (ours, bares))
    figures = f"{longest.median:.1f} ÷ {of_bare.median:.1f} ms"
    name = f"longest AsyncClient.publish ÷ of a raw socket, {AT_ONCE} at once"
    return Measure(name, 3, 1.5, ratio(longest, of_bare), figures, smaller_is_better=True)


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])


def _rates(above: Spread, below: Spread) -> str:
    return f"{above.median:,.0f} ÷ {below.median:,.0f} messages per s"
