"""What the figures were measured on."""

import hashlib
import os
import platform
import statistics
import time
from pathlib import Path

import fastpubsub
from benchmarks.stack import ROOT, Cluster

_PROGRAM = ("fastpubsub", "migrations/versions")
_COMMITS = 200
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")


def describe(cluster: Cluster) -> dict[str, str]:
    with cluster.connect() as connection:
        row = connection.execute("show server_version").fetchone()
        settings = connection.execute(
            "select string_agg(n || ' ' || current_setting(n), ', ' order by n) from unnest(%s::text[]) as n",
            [list(_SETTINGS)],
        ).fetchone()
    cores, postgres = len(os.sched_getaffinity(0)), row[0] if row else ""
    return {
        "machine": f"{cores} cores, {_processor()}, {platform.system()} {platform.release()}",
        "versions": f"fastpubsub {fastpubsub.__version__}, Python {platform.python_version()}, PostgreSQL {postgres}",
        "program": fingerprint()[:12],
        "PostgreSQL": settings[0] if settings else "",
        "one durable commit": f"{commit_milliseconds(cluster):.2f} ms (median)",
    }


def fingerprint() -> str:
    """Of the program that is measured."""
    digest = hashlib.sha256()
    for folder in _PROGRAM:
        for file in sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sql")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit_milliseconds(cluster: Cluster) -> float:
    taken = []
    with cluster.connect() as connection:
        connection.execute("create table public.commits (at timestamptz)")
        for _ in range(_COMMITS):
            started = time.perf_counter()
            connection.execute("insert into public.commits values (now())")
            taken.append(time.perf_counter() - started)
        connection.execute("drop table public.commits")
    return statistics.median(taken) * 1000
