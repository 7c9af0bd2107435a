"""Bytes of WAL per message, without full-page images."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import raw
from benchmarks.bench import Bench, replay
from benchmarks.consume import Consumer
from benchmarks.errors import BenchmarkError
from benchmarks.pairs import Spread
from benchmarks.payloads import LARGE, batch
from benchmarks.results import Measure
from benchmarks.service import Service

BATCH = 100
BARE_BYTES = 1474
"""Of bare tables with the same rows, as the design measured it."""

_SLOT = "benchmark"
# A line is: type, then count, size of records, size of full-page images and of both, each with its share in brackets.
_LINE = re.compile(r"^(\S+)\s+\d+\s+[(\[][^)\]]*[)\]]\s+(\d+)\s+[(\[][^)\]]*[)\]]\s+(\d+)\s")


def wal(bench: Bench) -> list[Measure]:
    bytes_per_message: list[float] = []
    parts: Counter[str] = Counter()
    images = messages = 0
    with bench.service() as service:
        for _ in range(bench.plan.pairs):
            count, sizes, image_bytes = _one(service, bench.plan.seconds)
            bytes_per_message.append(sizes.total() / count)
            parts += sizes
            images += image_bytes
            messages += count
    shares = ", ".join(f"{part} {size / messages:,.0f}" for part, size in parts.most_common(4))
    bench.results.notes.append(
        f"WAL per 1 KB message: {shares}; full-page images apart, which were {images / messages:,.0f} more"
    )
    figures = f"bare tables: {BARE_BYTES:,}"
    spread = Spread(bytes_per_message)
    return [Measure("WAL bytes per 1 KB message", 1700, 1500, spread, figures, smaller_is_better=True)]


def _one(service: Service, seconds: float) -> tuple[int, Counter[str], int]:
    """Messages that were published, pulled and acked; bytes of records by type; bytes of full-page images."""
    topic = service.create_topic(keep=True)
    consumer = Consumer(topic.subscribe(), BATCH, LARGE)
    publish = replay(service.server, service.save(raw.publish(topic.id, batch(BATCH, LARGE))))
    with _kept_wal(service):
        start = _flushed(service)
        publish(seconds)
        time.sleep(0.2)  # what was in flight when wrk left
        count = topic.last_position
        consumer.drain(count, 10 * seconds + 10)
        sizes, images = _read(service, start, _flushed(service))
    return count, sizes, images


@contextmanager
def _kept_wal(service: Service) -> Iterator[None]:
    """A checkpoint in the middle would remove what is to be read at the end."""
    service.one("select pg_create_physical_replication_slot(%s, true)", _SLOT)
    try:
        yield
    finally:
        service.one("select pg_drop_replication_slot(%s)", _SLOT)


def _flushed(service: Service) -> str:
    """The end of the WAL; everything before it is on disk."""
    service.one("select pg_logical_emit_message(true, 'benchmark', '')")
    return str(service.one("select pg_current_wal_flush_lsn()")[0])


def _read(service: Service, start: str, end: str) -> tuple[Counter[str], int]:
    folder = service.cluster.postgres.cluster / "pg_wal"
    command: list[str | Path] = [
        service.cluster.program("pg_waldump"),
        "--stats",
        f"--path={folder}",
        f"--start={start}",
        f"--end={end}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    lines = [found for line in done.stdout.splitlines() if (found := _LINE.match(line))]
    if done.returncode != 0 or not lines:
        raise BenchmarkError(f"pg_waldump could not read the WAL: {done.stderr.strip()}")
    sizes: Counter[str] = Counter()
    images = 0
    for line in lines:
        if line[1] != "Total":
            sizes[line[1]] += int(line[2])
            images += int(line[3])
    return sizes, images
