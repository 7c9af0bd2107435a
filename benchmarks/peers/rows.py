"""The rows of the table: each puts its cells into it, from rounds in which all peers take turns."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.errors import BenchmarkError
from benchmarks.pairs import Spread, interleave, ratio
from benchmarks.peers import load
from benchmarks.peers.contender import Contender, Handling, Rounds
from benchmarks.peers.peer import memory
from benchmarks.peers.table import Cell, Table, half_load, percentile

AT_ONCE = (1, 16)
CONCURRENCY = (1, 10, 100)
OF_A_WORKER = 10
"""The concurrency while arrivals are measured."""
QUIET_RATE = 100.0
LEAST_FILL_SECONDS = 5.0
MEGABYTE = 1_000_000

PUBLISH_ROW = "publish/s, {} at once"
HANDLE_ROW = "handled/s, concurrency {}"


@dataclass(frozen=True)
class Plan:
    name: str
    rounds: int
    seconds: float
    """Of a round."""
    arrival_seconds: float
    backlog: int
    minutes: float = 12.0
    """For everything; what is left at the end is for making the backlogs."""
    size: int = 1024
    """Of a payload, in bytes."""


NORMAL = Plan("bench-peers", 3, 0.8, 2.0, 1_000_000)
QUICK = Plan("bench-peers-quick", 1, 0.5, 1.0, 20_000)


@dataclass
class Run:
    plan: Plan
    table: Table
    contenders: list[Contender]
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float:
        return self.began + self.plan.minutes * 60 - time.monotonic()

    @property
    def consumers(self) -> list[Contender]:
        return [one for one in self.contenders if not one.peer.publishes_only]

    def noise(self) -> Spread:
        """The first of the peers against itself."""
        one = self.contenders[0]
        arms = [Rounds(one, partial(one.publish, load.publish, 16)) for _ in range(2)]
        return ratio(*interleave(arms, self.plan.rounds, self.plan.seconds, self.plan.seconds / 2))

    def publish(self) -> None:
        singly = [self._publish_singly(at_once) for at_once in AT_ONCE]
        self._costs(f"published {AT_ONCE[-1]} at once", singly[-1])
        batches = [
            Rounds(one, partial(one.publish, load.publish_batches, load.BATCHES_AT_ONCE)) for one in self.consumers
        ]
        self._turns(f"publish/s, by {load.BATCH}", batches)
        self._drop("published")

    def handle(self) -> None:
        handled = [self._handle(concurrency) for concurrency in CONCURRENCY]
        self._costs(f"handled, concurrency {CONCURRENCY[-1]}", handled[-1])
        self._drop("handled")

    def arrivals(self) -> None:
        self._arrivals("100/s", dict.fromkeys((one.name for one in self.consumers), QUIET_RATE))
        rows = (PUBLISH_ROW.format(16), HANDLE_ROW.format(OF_A_WORKER))
        measured = [one for one in self.consumers if one.rates.keys() >= set(rows)]
        self._arrivals("half load", {one.name: half_load(*(one.rates[row] for row in rows)) for one in measured})
        self._drop("arrivals")

    def backlog(self) -> None:
        """One after the other, and each is emptied before the next."""
        owners = [one for one in self.consumers if not one.peer.shares]
        for number, one in enumerate(owners):
            seconds = max(LEAST_FILL_SECONDS, self.seconds_left / (len(owners) - number))
            self._catch(f"{one.peer.name}, backlog", partial(self._backlog, one, seconds))

    def _publish_singly(self, at_once: int) -> list[Rounds]:
        rounds = [Rounds(one, partial(one.publish, load.publish, at_once)) for one in self.contenders]
        return self._turns(PUBLISH_ROW.format(at_once), rounds)

    def _handle(self, concurrency: int) -> list[Rounds]:
        rounds = [Rounds(one, Handling(one, concurrency)) for one in self.consumers]
        return self._turns(HANDLE_ROW.format(concurrency), rounds)

    def _backlog(self, one: Contender, seconds: float) -> None:
        target, megabytes_before = one.target("backlog"), memory(one.broker) / MEGABYTE
        there = one.publisher.run(load.fill, target, self.plan.backlog, seconds)
        cell = Cell(
            Spread([memory(one.broker) / MEGABYTE]), True, "" if there == self.plan.backlog else f" at {there:,}"
        )
        self.table.add("memory of the broker before, MB", {one.peer.name: Cell(Spread([megabytes_before]), True)})
        self.table.add(f"the same with a backlog of {self.plan.backlog:,}", {one.peer.name: cell})
        one.publisher.run(load.drop, target)

    def _arrivals(self, title: str, rates: dict[str, float]) -> None:
        ready = [one for one in self.consumers if one.name in rates]
        if self.seconds_left < 0:
            self.failures.append(f"publish to handler, {title}: the time was up")
            return
        for number in range(self.plan.rounds):
            for one in ready if number % 2 == 0 else reversed(ready):
                call = partial(one.arrivals, title, rates[one.name], self.plan.arrival_seconds, OF_A_WORKER)
                self._catch(f"{one.peer.name}, arrival at {title}", call)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            row = f"publish to handler, {title}, {name}, ms"
            for one in ready:
                milliseconds = [percentile(latencies, share) * 1000 for latencies in one.latencies.get(title, [])]
                note = f" at {rates[one.name]:,.0f}/s" if rates[one.name] != QUIET_RATE else ""
                if milliseconds:
                    self.table.add(row, {one.peer.name: Cell(Spread(milliseconds), True, note)})

    def _turns(self, row: str, rounds: list[Rounds]) -> list[Rounds]:
        if self.seconds_left < 0:
            self.failures.append(f"{row}: the time was up")
            return []
        spreads = interleave(rounds, self.plan.rounds, self.plan.seconds, self.plan.seconds / 2)
        for one, spread in zip(rounds, spreads, strict=True):
            if one.failure:
                self.failures.append(f"{one.contender.peer.name}, {row}: {one.failure}")
                continue
            one.contender.rates[row] = spread.median
            self.table.add(row, {one.contender.peer.name: Cell(spread)})
        return rounds

    def _costs(self, what: str, rounds: list[Rounds]) -> None:
        whole = [one for one in rounds if not one.failure]
        for who, cost in (("client", Rounds.client_cost), ("broker", Rounds.broker_cost)):
            cells = {one.contender.peer.name: cost(one) for one in whole}
            self.table.add(f"CPU s of the {who} per 1,000, {what}", cells)

    def _drop(self, queue: str) -> None:
        for one in self.contenders:
            if not one.peer.publishes_only:
                self._catch(f"{one.peer.name}, drop", partial(one.publisher.run, load.drop, one.target(queue)))

    def _catch(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except BenchmarkError as error:
            self.failures.append(f"{what}: {error}")


ROWS: dict[str, Callable[[Run], None]] = {
    "publish": Run.publish,
    "handle": Run.handle,
    "arrivals": Run.arrivals,
    "backlog": Run.backlog,
}
