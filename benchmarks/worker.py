"""What a worker in Python does, beside a bare socket that pulls and acks in batches of its concurrency."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field

from benchmarks import raw
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.pairs import Spread, ratio
from benchmarks.results import Measure
from benchmarks.service import Subscription
from benchmarks.stack import HOST
from fastpubsub.client import AsyncClient, Worker

CONCURRENCY = {10: (0.5, 0.8), 100: (0.6, 0.8)}
"""What must be reached and what is aimed at."""

_ACK_ID = b'"ack_id":"'
_ACK_ID_BYTES = 53
_RESERVE = 2.0
_ATTEMPTS = 5


def worker(bench: Bench) -> list[Measure]:
    """An empty handler. Its longest stall is the longest time without one being called."""
    measures = []
    with bench.service() as service:
        subscription = service.create_topic().subscribe()
        for concurrency, (must, aim) in CONCURRENCY.items():
            handling = Rounds(subscription, Handling(subscription, concurrency))
            apart, at_once = (
                Rounds(subscription, Bare(subscription, concurrency, at_once=at_once)) for at_once in (False, True)
            )
            ours, bare, best = bench.rounds(handling, apart, at_once)
            name = f"worker, empty handler, concurrency {concurrency} ÷ raw pull + ack"
            measures.append(Measure(name, must, aim, ratio(ours, bare), _rates(ours, bare)))
            measures.append(Measure(f"{name} (one request)", must, aim, ratio(ours, best), _rates(ours, best)))
            measures.append(_stalls(handling, at_once, concurrency))
        bench.check_totals("handled by a worker", subscription)
    return measures


Consume = Callable[[float, "Clock"], Coroutine[None, None, None]]


@dataclass
class Clock:
    """Counts messages, and notices when for a while none came."""

    messages: int = 0
    """After the first ones, with which it starts: a client takes a moment to be made."""
    longest: float = 0.0
    _started: float = 0.0
    _last: float = 0.0

    @property
    def rate(self) -> float:
        return self.messages / (self._last - self._started) if self.messages else 0.0

    def came(self, messages: int = 1) -> None:
        now = time.perf_counter()
        if not self._started:
            self._started = self._last = now
            return
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self.messages += messages


@dataclass
class Rounds:
    """An arm that never meets an empty subscription: then the round is repeated with more messages."""

    subscription: Subscription
    consume: Consume
    stalls: list[float] = field(default_factory=list)
    """Seconds, of each round and before them of the warm-up."""
    _rate: float = 20_000.0

    def __call__(self, seconds: float) -> float:
        for _ in range(_ATTEMPTS):
            self.subscription.ensure_ahead(round(self._rate * seconds * _RESERVE) + 1000)
            clock = Clock()
            asyncio.run(self.consume(seconds, clock))
            self._rate = max(self._rate, clock.rate)
            if self.subscription.ahead > 0:
                if clock.rate:
                    self.stalls.append(clock.longest)
                return clock.rate
            self._rate *= 2
        raise BenchmarkError("the subscription ran empty again and again, so its worker could not be measured")


@dataclass(frozen=True)
class Handling:
    """A worker of ours."""

    subscription: Subscription
    concurrency: int

    async def __call__(self, seconds: float, clock: Clock) -> None:
        made = Worker(concurrency=self.concurrency)
        url = f"http://{self.subscription.topic.service.server.address}"

        @made.subscriber(self.subscription.id)
        async def handle(payload: dict) -> None:  # type: ignore[type-arg]
            clock.came()

        async with AsyncClient(url) as client:
            serving = asyncio.create_task(made.serve(client))
            asyncio.get_running_loop().call_later(seconds, made.stop)
            await serving


@dataclass(frozen=True)
class Bare:
    """One connection. `at_once`: a request acks the last batch and pulls the next."""

    subscription: Subscription
    batch_size: int
    at_once: bool

    async def __call__(self, seconds: float, clock: Clock) -> None:
        connection = await asyncio.open_connection(HOST, self.subscription.topic.service.server.port)
        until = time.perf_counter() + seconds
        ids: list[bytes] = []
        try:
            while time.perf_counter() < until:
                ids = await (self._exchange(*connection, ids) if self.at_once else self._pull_and_ack(*connection))
                clock.came(len(ids))
            if self.at_once:
                await _ask(*connection, self._ack(ids))
        finally:
            connection[1].close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ids: list[bytes]
    ) -> list[bytes]:
        path = f"/subscriptions/{self.subscription.id}/pulls?consumer_id=benchmark&batch_size={self.batch_size}"
        body = b'{"acks":%b}' % _list(ids)
        return list(_ack_ids(await _ask(reader, writer, raw.request("POST", path, body))))

    async def _pull_and_ack(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        pulled = await _ask(reader, writer, raw.pull(self.subscription.id, self.batch_size))
        ids = list(_ack_ids(pulled))
        await _ask(reader, writer, self._ack(ids))
        return ids

    def _ack(self, ids: list[bytes]) -> bytes:
        return raw.request("POST", f"/subscriptions/{self.subscription.id}/acks", _list(ids))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 2"):
        raise BenchmarkError(f"a request failed: {head[:100]!r}")
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length or 0))


def _ack_ids(answer: bytes) -> Iterator[bytes]:
    at = answer.find(_ACK_ID)
    while at >= 0:
        start = at + len(_ACK_ID)
        yield answer[start : start + _ACK_ID_BYTES]
        at = answer.find(_ACK_ID, start + _ACK_ID_BYTES)


def _list(ids: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(b'"%b"' % one for one in ids)


def _stalls(ours: Rounds, bare: Rounds, concurrency: int) -> Measure:
    longest, of_bare = (Spread([seconds * 1000 for seconds in arm.stalls[1:]]) for arm in (ours, bare))
    figures = f"{longest.median:.1f} ÷ {of_bare.median:.1f} ms"
    name = f"longest time without a message, worker, concurrency {concurrency} ÷ raw (one request)"
    return Measure(name, 3, 1.5, ratio(longest, of_bare), figures, smaller_is_better=True)


def _rates(above: Spread, below: Spread) -> str:
    return f"{above.median:,.0f} ÷ {below.median:,.0f} messages per s"
