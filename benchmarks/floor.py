"""The floor under publishing in batches: pgbench, one connection, a bare INSERT … SELECT, nothing else."""

import itertools
import re
import subprocess
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.payloads import payload
from benchmarks.service import Service
from fastpubsub.database.urls import normalise

BATCH = 100

_TABLE = "create table public.bare (like fastpubsub.messages including indexes)"
_INSERT = """\\set base :base + {batch}
insert into public.bare (topic_key, position, created_at, payload)
select 1, :base::bigint + n, now(), '{payload}' from generate_series(1, {batch}) as n;
"""
_ROUND = 10**9
_rounds = itertools.count(1)


class Floor:
    """Into a table with the columns and the primary key of `messages`, and no other index, function or trigger."""

    def __init__(self, service: Service) -> None:
        self._service = service
        service.connection.execute("drop table if exists public.bare")
        service.connection.execute(_TABLE)
        self._script = service.folder / "floor.sql"
        self._script.write_text(_INSERT.format(batch=BATCH, payload=payload(0)))

    def rows_per_second(self, seconds: float) -> float:
        url = normalise(self._service.database_url)
        command: list[str | Path] = [
            self._service.cluster.program("pgbench"),
            f"--host={url.query['host']}",
            f"--port={url.query['port']}",
            "--username=postgres",
            "--no-vacuum",
            "--protocol=prepared",
            "--client=1",
            f"--time={max(1, round(seconds))}",
            f"--define=base={next(_rounds) * _ROUND}",
            f"--file={self._script}",
            url.database or "",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if found is None:
            raise BenchmarkError(f"pgbench could not insert: {done.stderr.strip()}")
        return float(found[1]) * BATCH
