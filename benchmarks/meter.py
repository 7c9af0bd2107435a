"""What a stretch of load costs: CPU time by program, transactions, what PostgreSQL waits for."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from benchmarks.stack import Cluster, Server

SAMPLE_SECONDS = 0.02
NO_WAIT = "CPU"

_STAT = Path("/proc/stat")
_IDLE, _STEAL = (3, 4), 7
"""Columns of /proc/stat: idle and waiting for a disk; taken by the host."""


@dataclass(frozen=True)
class Cost:
    """Of a stretch of load."""

    seconds: float
    server_seconds: float
    postgres_seconds: float
    transactions: int
    """That wrote something: each has an id, and a commit in the WAL."""
    waits: Counter[str] = field(default_factory=Counter)
    """Samples of what the server's connections did while they ran a statement."""


def cpu_seconds(tree: psutil.Process) -> float:
    """Of a process and its children, those that have ended too."""
    times = tree.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in tree.children(recursive=True):
        try:
            own = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += own.user + own.system
    return total


class Meter:
    def __init__(self, cluster: Cluster, server: Server) -> None:
        self._cluster = cluster
        self._server = server
        self._waits = Waits(cluster)

    def __enter__(self) -> Self:
        self._before = self._read()
        self._waits.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waits.stop()
        started, server, postgres, transactions = self._before
        now = self._read()
        self.cost = Cost(now[0] - started, now[1] - server, now[2] - postgres, now[3] - transactions, self._waits.seen)

    def _read(self) -> tuple[float, float, float, int]:
        with self._cluster.connect() as connection:
            row = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        transactions = int(row[0]) if row else 0
        return time.monotonic(), cpu_seconds(self._server.process), cpu_seconds(self._cluster.process), transactions


class Waits:
    """Asks from another database, so that the questions are not counted with what they look at."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: Counter[str] = Counter()
        self._cluster = cluster
        self._stopping = threading.Event()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        query = (
            "select coalesce(wait_event_type || ':' || wait_event, %s), count(*) from pg_stat_activity "
            "where application_name = 'fastpubsub' and state = 'active' group by 1"
        )
        with self._cluster.connect() as connection:
            while not self._stopping.wait(SAMPLE_SECONDS):
                for name, count in connection.execute(query, [NO_WAIT]).fetchall():
                    self.seen[name] += count


class Memory:
    """The resident memory of a worker, once a second."""

    def __init__(self, worker: psutil.Process) -> None:
        self.samples: list[tuple[float, int]] = []
        """Seconds since the start, bytes."""
        self._worker = worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stopping.wait(1):
            try:
                self.samples.append((time.monotonic() - started, self._worker.memory_info().rss))
            except psutil.NoSuchProcess:
                return


@dataclass(frozen=True)
class Machine:
    """Clock ticks since the machine started, over the cores that we may use."""

    busy: int
    idle: int
    stolen: int

    @classmethod
    def read(cls) -> "Machine":
        busy = idle = stolen = 0
        for core in os.sched_getaffinity(0):
            line = next(line for line in _STAT.read_text().splitlines() if line.startswith(f"cpu{core} "))
            ticks = [int(part) for part in line.split()[1:9]]
            stolen += ticks[_STEAL]
            idle += sum(ticks[column] for column in _IDLE)
            busy += sum(ticks) - sum(ticks[column] for column in _IDLE) - ticks[_STEAL]
        return cls(busy, idle, stolen)


@dataclass
class Neighbours:
    """Which share of the cores was used by others than this benchmark, and which the host took."""

    others: float = 0.0
    stolen: float = 0.0


@contextmanager
def watch_neighbours(trees: list[psutil.Process]) -> Iterator[Neighbours]:
    """`trees` and what this process has started and waited for are ours."""
    result = Neighbours()
    before, ours = Machine.read(), _ours(trees)
    yield result
    after = Machine.read()
    total = (after.busy + after.idle + after.stolen) - (before.busy + before.idle + before.stolen)
    own_ticks = (_ours(trees) - ours) * os.sysconf("SC_CLK_TCK")
    result.others = max(0.0, (after.busy - before.busy - own_ticks) / max(total, 1))
    result.stolen = (after.stolen - before.stolen) / max(total, 1)


def _ours(trees: list[psutil.Process]) -> float:
    """Ourselves with the load generators, which have ended; servers that run on are counted by their trees."""
    own = psutil.Process().cpu_times()
    return float(own.user + own.system + own.children_user + own.children_system) + sum(map(cpu_seconds, trees))
