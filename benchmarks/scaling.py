"""`python -m benchmarks.scaling`: what a message costs here, and the machines that more of them take.

Measures publishes of 1 and of 100 messages, and pulls with acks of 100; takes what a request, a call and a message cost
from that; simulates publishes of 10, and measures them too, so that one sees how good the prediction is. Other programs
may use the machine meanwhile: how much slower that makes the two that are known, it also makes the one that is not.
Then it multiplies.
"""

import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks import load, raw
from benchmarks.bench import replay
from benchmarks.consume import Consumer
from benchmarks.load import CONNECTIONS, Load
from benchmarks.machine import commit_milliseconds
from benchmarks.meter import Cost, Meter
from benchmarks.payloads import LARGE, batch
from benchmarks.service import Service
from benchmarks.simulation import Costs, closed_loop, simulate
from benchmarks.stack import Cluster

SECONDS = 2.0
ROUNDS = 3
FEW, MANY, BETWEEN = 1, 100, 10
BUSY = 0.6
"""Of a core: with more, messages wait for each other."""

NODE_CORES = 32
NODE_WAL_BYTES = 200e6
"""A second, that a good disk and a standby keep up with all day."""

RATES = (1_000, 100_000, 1_000_000)
SUBSCRIPTIONS = 2
"""Of each topic."""

CONNECTIONS_OF_A_PROCESS = 17


@dataclass(frozen=True)
class Sample:
    """Of one stretch of load: requests a second, and for each of them seconds of CPU, calls and bytes."""

    rate: float
    server: float
    postgres: float
    generator: float
    calls: float
    wal_bytes: float


class Publishing:
    def __init__(self, service: Service, batch_size: int) -> None:
        self._service = service
        self.batch_size = batch_size
        topic = service.create_topic()
        self._run = replay(service.server, service.save(raw.publish(topic.id, batch(batch_size, LARGE))))

    def sample(self, seconds: float) -> Sample:
        self._run(seconds / 4)
        before = wal_position(self._service)
        with Meter(self._service.cluster, self._service.server) as meter:
            done = self._run(seconds)
        wal = wal_position(self._service) - before
        return made_of(meter.cost, done, done.requests, wal)


class Consuming:
    """A request acks a batch and pulls the next one."""

    def __init__(self, service: Service, batch_size: int) -> None:
        self._service = service
        self.batch_size = batch_size
        self._consumer = Consumer(service.create_topic().subscribe(), batch_size, LARGE, at_once=True)

    def sample(self, seconds: float) -> Sample:
        self._consumer.run(seconds / 4)
        self._consumer.prepare(seconds)
        before = wal_position(self._service)
        with Meter(self._service.cluster, self._service.server) as meter:
            done = load.finish(self._consumer.start(seconds))
        wal = wal_position(self._service) - before
        return made_of(meter.cost, done, done.counts["acked"] / self.batch_size, wal)


def made_of(cost: Cost, done: Load, requests: float, wal_bytes: int) -> Sample:
    requests = max(requests, 1)
    return Sample(
        requests / done.seconds,
        cost.server_seconds / requests,
        cost.postgres_seconds / requests,
        done.cpu_seconds / requests,
        cost.transactions / requests,
        wal_bytes / requests,
    )


def median(samples: Sequence[Sample]) -> Sample:
    return Sample(*(statistics.median(getattr(one, field.name) for one in samples) for field in fields(Sample)))


def wal_position(service: Service) -> int:
    return int(service.one("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")[0])


def costs_of(few: Sample, many: Sample, messages: int, commit: float) -> Costs:
    """Of a request of so many messages, on the line through those of FEW and of MANY."""
    share = (messages - FEW) / (MANY - FEW)
    server, generator = (
        getattr(few, name) * (1 - share) + getattr(many, name) * share for name in ("server", "generator")
    )
    # For each request: postgres = calls * call + messages * message, with two of them known.
    call = (few.postgres - many.postgres / MANY) / max(few.calls - many.calls / MANY, 1e-9)
    message = max(many.postgres - many.calls * call, 0.0) / MANY
    return Costs(server, generator, call, message * messages, commit)


@dataclass(frozen=True)
class Measured:
    few: Sample
    between: Sample
    many: Sample
    consumed: Sample
    commit: float
    cores: int

    def rate(self, messages: int) -> float:
        """Simulated: requests a second from CONNECTIONS callers, who send the next when they have their answer."""
        return closed_loop(CONNECTIONS, costs_of(self.few, self.many, messages, self.commit), self.cores).rate

    def ceiling(self) -> float:
        """Messages a second of one topic, published by MANY through one process, where nobody else wants a core."""
        costs = costs_of(self.few, self.many, MANY, self.commit)
        return simulate(CONNECTIONS, costs).rate * MANY

    def predicted_rate(self) -> float:
        slower = math.sqrt(self.few.rate / self.rate(FEW) * self.many.rate / self.rate(MANY))
        return self.rate(BETWEEN) * slower

    def predicted_costs(self) -> tuple[float, float]:
        """Of a request of BETWEEN messages, at the server and in PostgreSQL."""
        costs = costs_of(self.few, self.many, BETWEEN, self.commit)
        return costs.server, costs.request_in_call + self.between.calls * costs.call


@dataclass(frozen=True)
class Machines:
    rate: int
    processes: int
    nodes: int
    parts: int
    limit: str


def machines(rate: int, published: Sample, consumed: Sample, topic_ceiling: float) -> Machines:
    """For messages of 1 KB, published by MANY and pulled by MANY, in any number of topics."""
    server = (published.server + SUBSCRIPTIONS * consumed.server) / MANY * rate / BUSY
    postgres = (published.postgres + SUBSCRIPTIONS * consumed.postgres) / MANY * rate / BUSY
    wal = (published.wal_bytes + SUBSCRIPTIONS * consumed.wal_bytes) / MANY * rate
    needs = {"CPU of PostgreSQL": postgres / NODE_CORES, "bytes of WAL": wal / NODE_WAL_BYTES}
    limit = max(needs, key=lambda name: needs[name])
    return Machines(rate, math.ceil(server), math.ceil(needs[limit]), math.ceil(rate / topic_ceiling), limit)


def sample_all(service: Service, seconds: float, rounds: int) -> tuple[Sample, Sample, Sample, Sample]:
    """In turns, so that what else happens on the machine happens to all of them."""
    sources = [Publishing(service, size) for size in (FEW, BETWEEN, MANY)] + [Consuming(service, MANY)]
    samples = [[source.sample(seconds) for source in sources] for _ in range(rounds)]
    few, between, many, consumed = (median(column) for column in zip(*samples, strict=True))
    return few, between, many, consumed


def cost_lines(measured: Measured) -> Iterator[str]:
    yield f"{measured.cores} cores; a commit takes {measured.commit * 1000:.2f} ms; for each message of 1 KB:"
    yield "                           µs server  µs PostgreSQL  bytes of WAL  messages a second"
    for title, one, size in (
        ("published by 1", measured.few, FEW),
        ("published by 10", measured.between, BETWEEN),
        ("published by 100", measured.many, MANY),
        ("pulled and acked by 100", measured.consumed, MANY),
    ):
        server, postgres = one.server * 1e6 / size, one.postgres * 1e6 / size
        figures = f"{server:9.1f}  {postgres:13.1f}  {one.wal_bytes / size:12,.0f}  {one.rate * size:17,.0f}"
        yield f"  {title:<25}{figures}"


def prediction_lines(measured: Measured) -> Iterator[str]:
    server, postgres = measured.predicted_costs()
    between = measured.between
    yield "published by 10, predicted from the others ÷ measured:"
    yield (
        f"  server {server / between.server:.2f}, PostgreSQL {postgres / between.postgres:.2f}, "
        f"messages a second {measured.predicted_rate() / between.rate:.2f}"
    )


def machine_lines(measured: Measured) -> Iterator[str]:
    yield f"one topic takes up to {measured.ceiling():,.0f} messages a second, by simulation"
    yield f"with {SUBSCRIPTIONS} subscriptions, {BUSY:.0%} of each core busy, and everything in batches of {MANY}:"
    for rate in RATES:
        plan = machines(rate, measured.many, measured.consumed, measured.ceiling())
        yield (
            f"  {rate:>9,} a second: {plan.processes} processes of the API, at most "
            f"{plan.processes * CONNECTIONS_OF_A_PROCESS:,} connections, {plan.nodes} PostgreSQL of {NODE_CORES} cores "
            f"({plan.limit}), {plan.parts} topics"
        )


def measure(place: str | None, seconds: float, rounds: int) -> Measured:
    """`place`: the folder of the database; figures depend on the disk."""
    with tempfile.TemporaryDirectory(prefix="fastpubsub-scaling-", dir=place) as name, Cluster(Path(name)) as cluster:
        cluster.run_in(64)
        commit = commit_milliseconds(cluster) / 1000
        with closing(Service(cluster, Path(name))) as service:
            samples = sample_all(service, seconds, rounds)
    return Measured(*samples, commit, len(os.sched_getaffinity(0)))


def main() -> None:
    measured = measure(sys.argv[1] if len(sys.argv) > 1 else None, SECONDS, ROUNDS)
    for lines in (cost_lines, prediction_lines, machine_lines):
        print("\n".join(lines(measured)))


if __name__ == "__main__":
    main()
