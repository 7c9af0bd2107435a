"""A peer with its broker and two processes of clients, and what they do in a round."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.pairs import Spread
from benchmarks.peers import load
from benchmarks.peers.driver import Coroutine, Driver
from benchmarks.peers.load import Load, Target
from benchmarks.peers.peer import Broker, Peer, cpu
from benchmarks.peers.table import Cell

MOST = 60_000
"""Messages of a round of handling."""
NO_FIGURE = -1.0


@dataclass
class Contender:
    name: str
    peer: Peer
    broker: Broker
    size: int
    """Of a payload, in bytes."""
    publisher: Driver = field(default_factory=Driver)
    consumer: Driver = field(default_factory=Driver)
    rates: dict[str, float] = field(default_factory=dict)
    """Medians of what was measured, by row."""
    latencies: dict[str, list[list[float]]] = field(default_factory=dict)
    """Of each round, by load."""

    def target(self, queue: str) -> Target:
        return Target(self.peer.client, self.broker.url, f"{self.name}_{queue}", self.size)

    def publish(self, function: Coroutine[Load], at_once: int, seconds: float) -> Load:
        return self._timed(self.publisher, function, self.target("published"), at_once, seconds)

    def handle(self, count: int, concurrency: int) -> Load:
        target = self.target("handled")
        self.publisher.run(load.fill, target, count)
        return self._timed(self.consumer, load.handle, target, count, concurrency)

    def arrivals(self, title: str, rate: float, seconds: float, concurrency: int) -> None:
        """One more round: seconds from when each message was due to when it came to a handler."""
        target, count = self.target("arrivals"), max(1, int(rate * seconds))
        self.publisher.run(load.fill, target, 0)
        self.consumer.begin(load.arrive, target, count, concurrency)
        try:
            due = self.publisher.run(load.pace, target, rate, count)
        finally:
            arrived = self.consumer.end(load.arrive)
        latencies = [arrived[number] - moment for number, moment in enumerate(due)]
        self.latencies.setdefault(title, []).append(latencies)

    def stop(self) -> None:
        self.publisher.stop()
        self.consumer.stop()

    def _timed(self, driver: Driver, function: Coroutine[Load], *arguments: Any) -> Load:
        before = cpu(self.broker)
        done = driver.run(function, *arguments)
        return replace(done, broker_seconds=cpu(self.broker) - before)


@dataclass
class Rounds:
    """Of one contender in one row; one that fails has no figure and does not stop the others."""

    contender: Contender
    once: "partial[Load] | Handling"
    loads: list[Load] = field(default_factory=list)
    """The first is the warm-up."""
    failure: str = ""

    def __call__(self, seconds: float) -> float:
        if self.failure:
            return NO_FIGURE
        try:
            self.loads.append(self.once(seconds))
        except BenchmarkError as error:
            self.failure = str(error)
            return NO_FIGURE
        return self.loads[-1].rate

    def client_cost(self) -> Cell:
        """CPU seconds for 1,000 messages."""
        return _cost([done.cpu_seconds * 1000 / done.messages for done in self.loads])

    def broker_cost(self) -> Cell:
        """The same."""
        return _cost([done.broker_seconds * 1000 / done.messages for done in self.loads])


@dataclass
class Handling:
    """Rounds with as many messages as were handled in that time before."""

    contender: Contender
    concurrency: int
    rate: float = 0.0

    def __call__(self, seconds: float) -> Load:
        fewest = 50 + (5 if self.rate else 20) * self.concurrency
        done = self.contender.handle(min(MOST, max(fewest, int(self.rate * seconds))), self.concurrency)
        self.rate = done.rate
        return done


def _cost(values: list[float]) -> Cell:
    return Cell(Spread(values[1:]), smaller_is_better=True)
