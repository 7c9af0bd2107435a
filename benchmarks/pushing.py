"""Pushing: to one endpoint and to a thousand, and how soon a message is at its endpoint."""

import asyncio
import re
import time
from multiprocessing.connection import Connection
from typing import cast

import psutil
import uvloop

from benchmarks.arrivals import SPAWN, Arrivals
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.latency import measure_round, percentile
from benchmarks.load import Load
from benchmarks.pairs import Spread, ratio
from benchmarks.payloads import FIRST
from benchmarks.results import Measure
from benchmarks.service import Service
from benchmarks.stack import HOST, free_port

BATCH = 100
PER_SECOND = 3000.0
"""Deliveries to one endpoint that count as enough."""

ARRIVING_PER_SECOND = 100.0
SETTINGS = {
    "push_secret_key": "k" * 32,
    "push_allow_http": True,
    "push_allow_networks": "127.0.0.0/8",
    "push_allow_ports": "*",
    # The default leaves time for the API.
    "push_max_per_second": 1_000_000,
}
_TIMED = b"/timed"
_DEADLINE_SECONDS = 120.0
_LOOK_SECONDS = 0.02
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_NUMBER = re.compile(rb'"n":(\d{9})')


def pushing(bench: Bench) -> list[Measure]:
    """The server that pushes serves the API as well, and all is on this machine."""
    with bench.service(**SETTINGS) as service, Endpoint() as endpoint:
        endpoints = bench.plan.endpoints
        one, many = (Pushed(service, endpoint, count) for count in (1, endpoints))
        to_one, to_many = bench.rounds(one.per_second, many.per_second)
        for name, arm in (("push to one endpoint", one), (f"push to {endpoints:,} endpoints", many)):
            bench.account(name, service.server, arm.run, lambda done: done.requests)
        arrival = _arrival(bench, service, endpoint)
        bench.check_totals("push to one endpoint", one.subscriptions[0])
    return [
        _enough("pushed to one endpoint", to_one, PER_SECOND),
        _enough(f"pushed to {endpoints:,} endpoints", to_many, PER_SECOND / 2),
        arrival,
    ]


def _enough(name: str, found: Spread, per_second: float) -> Measure:
    share = ratio(found, Spread([per_second] * len(found.values)))
    return Measure(f"{name} ÷ {per_second:,.0f} a second", 1, 2, share, f"{found.median:,.0f} per s")


class Endpoint(Arrivals):
    """A process that answers everything at once."""

    def __init__(self) -> None:
        self.port = free_port()
        self._ours, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs, self.port))

    def push(self, path: str, max_concurrency: int) -> dict[str, object]:
        return {"endpoint": f"http://{HOST}:{self.port}{path}", "max_concurrency": max_concurrency}

    def look(self) -> tuple[int, float]:
        """How many requests came until now, and when the last one did."""
        self._ours.send(False)
        count, last = self._ours.recv()
        return count, last

    @property
    def cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)


class Pushed:
    """Subscriptions of one topic, each with an endpoint of its own, which get what is published at once."""

    def __init__(self, service: Service, endpoint: Endpoint, count: int) -> None:
        self._endpoint = endpoint
        self._topic = service.create_topic()
        self._rate = PER_SECOND
        pushes = [endpoint.push(f"/{place}", max_concurrency=100 if count == 1 else 10) for place in range(count)]
        self.subscriptions = [self._topic.subscribe(push=push) for push in pushes]

    def per_second(self, seconds: float) -> float:
        return self.run(seconds).rate

    def run(self, seconds: float) -> Load:
        """From the publish that wakes them until all have got everything."""
        endpoint, many = self._endpoint, len(self.subscriptions)
        position, (before, _), spent = self._topic.last_position, endpoint.look(), endpoint.cpu_seconds
        messages = max(2, round(self._rate * seconds / many))
        if messages > BATCH:
            self._topic.fill(messages - BATCH)
        started = time.perf_counter()
        self._topic.service.post(f"/topics/{self._topic.id}/messages", [{"n": n} for n in range(min(messages, BATCH))])
        wanted = (self._topic.last_position - position) * many
        done, took = self._wait_for(before + wanted) - before, endpoint.look()[1] - started
        load = Load(done, took, endpoint.cpu_seconds - spent, {}, {}, {})
        self._rate = load.rate
        return load

    def _wait_for(self, count: int) -> int:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (seen := self._endpoint.look()[0]) < count:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"endpoints got {seen} of {count} messages in {_DEADLINE_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
        return seen


def _arrival(bench: Bench, service: Service, endpoint: Endpoint) -> Measure:
    topic = service.create_topic()
    subscription = topic.subscribe(push=endpoint.push(_TIMED.decode(), max_concurrency=10))
    plan = bench.plan
    measure_round(service, topic, endpoint, ARRIVING_PER_SECOND, max(1.0, plan.warm_up_seconds))
    seconds = plan.latency_seconds / plan.pairs
    rounds = [measure_round(service, topic, endpoint, ARRIVING_PER_SECOND, seconds) for _ in range(plan.pairs)]
    subscription.wait_until_settled()
    published, arrived = (Spread([percentile(one[place], "p50") for one in rounds]) for place in (0, 1))
    figures = f"{arrived.median * 1000:.2f} ÷ {published.median * 1000:.2f} ms"
    name = "publish to request at an endpoint, p50 ÷ p50 of a publish"
    return Measure(name, 3, 2, ratio(arrived, published), figures, smaller_is_better=True)


class _Counting(asyncio.Protocol):
    def __init__(self, counted: "_Counted") -> None:
        self._counted = counted
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        while (head := received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(received, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(received) < end:
                return
            self._counted.came(bytes(received[:end]))
            del received[:end]
            self._transport.write(_OK)


class _Counted:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._count = 0
        self._last = 0.0
        self._arrived: dict[int, float] = {}

    def came(self, request: bytes) -> None:
        self._count += 1
        self._last = time.perf_counter()
        if _TIMED in request[:20]:
            self._arrived |= {int(number) - FIRST: self._last for number in _NUMBER.findall(request)}

    def asked(self) -> None:
        """For the count, or for what has arrived."""
        if self._pipe.recv() is False:
            self._pipe.send((self._count, self._last))
            return
        self._pipe.send(self._arrived)
        self._arrived = {}


def _serve(pipe: Connection, port: int) -> None:
    uvloop.run(_serve_forever(pipe, port))


async def _serve_forever(pipe: Connection, port: int) -> None:
    counted, loop = _Counted(pipe), asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), counted.asked)
    server = await loop.create_server(lambda: _Counting(counted), HOST, port, backlog=2000)
    await server.serve_forever()
