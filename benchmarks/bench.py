"""What a row gets: servers, how long to measure, and a place for what it found beside its ratio."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, noop, raw
from benchmarks.load import Load
from benchmarks.meter import Meter
from benchmarks.pairs import Arm, Spread, interleave
from benchmarks.payloads import batch
from benchmarks.plan import Plan
from benchmarks.results import CostLine, Delivery, Results
from benchmarks.service import Service, Subscription
from benchmarks.stack import Cluster, Server

Run = Callable[[float], Load]
"""Loads something for so many seconds."""

PROFILER_COMES_FROM = "pip install py-spy"
_FREQUENT = 0.02
"""Of the samples: rarer waits are not told."""


@dataclass
class Bench:
    plan: Plan
    folder: Path
    cluster: Cluster
    noop: Server
    results: Results
    profiles: Path | None = None
    """Where flame graphs go, if somebody wants them."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _kept: Service | None = None

    def close(self) -> None:
        self._stack.close()

    @contextmanager
    def service(self, **settings: object) -> Iterator[Service]:
        """A fresh database and server, so that no row meets what another has left."""
        if self.plan.reuse and not settings:
            if self._kept is None:
                self._kept = Service(self.cluster, self.folder)
                self._stack.callback(self._kept.close)
            yield self._kept
            return
        service = Service(self.cluster, self.folder, **settings)
        try:
            yield service
        finally:
            service.close()

    def rounds(self, *arms: Arm) -> list[Spread]:
        plan = self.plan
        return interleave(arms, plan.pairs, plan.seconds, plan.warm_up_seconds, plan.most_pairs)

    def noop_run(self) -> Run:
        """The no-op route, with the body of a single publish."""
        file = raw.save([raw.request("POST", noop.PATH, batch(1))], self.folder / "noop")
        return replay(self.noop, file)

    def account(self, name: str, server: Server, run: Run, messages: Callable[[Load], int]) -> None:
        """One more round, not a measured one, that sees where the time goes."""
        with Meter(self.cluster, server) as meter, self._profile(name, server):
            done = run(self.plan.seconds)
        count, cost = max(messages(done), 1), meter.cost
        samples = max(cost.waits.total(), 1)
        self.results.costs.append(
            CostLine(
                name,
                count,
                cost.server_seconds * 1e6 / count,
                cost.postgres_seconds * 1e6 / count,
                done.cpu_seconds * 1e6 / count,
                cost.transactions / count,
                {wait: seen / samples for wait, seen in cost.waits.most_common() if seen / samples >= _FREQUENT},
            )
        )

    def check_totals(self, name: str, subscription: Subscription) -> None:
        """Whatever was published is acked, ahead, leased, waiting or dead."""
        metrics = subscription.metrics()
        published = subscription.topic.last_position
        found = sum(metrics[state] for state in ("available", "delivered", "acked", "dlq"))
        self.results.deliveries.append(Delivery(name, published, published - found, None))

    @contextmanager
    def _profile(self, name: str, server: Server) -> Iterator[None]:
        if self.profiles is None:
            yield
            return
        graph = self.profiles / f"{name.replace(' ', '-')}.svg"
        program = load.find("py-spy", PROFILER_COMES_FROM)
        options = ["--pid", server.worker.pid, "--duration", max(1, round(self.plan.seconds)), "--output", graph]
        command = [program, "record", "--rate", "250", *map(str, options)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):  # noqa: S603 - our own
            yield


def replay(server: Server, requests: Path) -> Run:
    return lambda seconds: load.run(server.address, "replay.lua", seconds, requests)


def requests_per_second(run: Run) -> Arm:
    return lambda seconds: run(seconds).rate


def messages_per_second(run: Run, batch_size: int) -> Arm:
    return lambda seconds: run(seconds).rate * batch_size
