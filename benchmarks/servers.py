"""`python -m benchmarks.servers`: event loops, HTTP parsers and numbers of workers, in turns.

The no-op route, where the server is all there is, and single publishes. What `fastpubsub server` does is 1; the others
are shares of it, each the median of interleaved rounds with its quartiles.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import load, noop, raw
from benchmarks.bench import replay, requests_per_second
from benchmarks.pairs import interleave, ratio
from benchmarks.payloads import batch
from benchmarks.service import Service
from benchmarks.stack import Cluster, Server
from fastpubsub.api import processes, server
from fastpubsub.config import load_settings

ROUNDS = 7
SECONDS = 2.0
OPTIONS = "BENCHMARK_UVICORN_OPTIONS"
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is: uvloop, httptools with bounds, 1 worker": {},
    "httptools without bounds": {"http": "httptools"},
    "h11": {"http": "h11"},
    "asyncio": {"loop": "asyncio"},
    "2 workers": {"workers": 2},
}


def main() -> None:
    load.find("wrk", load.WRK_COMES_FROM)
    with tempfile.TemporaryDirectory(prefix="fastpubsub-benchmark-") as name, Cluster(Path(name)) as cluster:
        service = Service(cluster, Path(name))
        topic = service.create_topic()
        topic.subscribe()
        publish = service.save(raw.publish(topic.id, batch(1)))
        nothing = service.save(raw.request("POST", noop.PATH, batch(1)))
        settings = {"database_url": service.database_url}
        try:
            for title, module, requests in (("no-op", "noop", nothing), ("publishes", "service", publish)):
                _compare(title, Path(name), module, requests, settings)
        finally:
            service.close()


def _compare(title: str, folder: Path, what: str, requests: Path, settings: Mapping[str, object]) -> None:
    servers = [_start(what, folder, dict(options), settings) for options in VARIANTS.values()]
    try:
        rates = interleave([requests_per_second(replay(one, requests)) for one in servers], ROUNDS, SECONDS, SECONDS)
    finally:
        for one in servers:
            one.stop()
    print(title)
    for name, rate in zip(VARIANTS, rates, strict=True):
        share = ratio(rate, rates[0])
        print(f"  {share.median:5.2f} ({share.quartiles[0]:.2f} to {share.quartiles[1]:.2f})  {name}", flush=True)


def _start(what: str, folder: Path, options: dict[str, Any], settings: Mapping[str, object]) -> Server:
    workers = options.pop("workers", 1)
    command = ["env", f"{OPTIONS}={json.dumps(options)}", sys.executable, "-m", "benchmarks.servers", what]
    started = Server(what, command, folder, {**settings, "api_num_workers": workers})
    started.wait_until_it_answers(*(("/noop", 405) if what == "noop" else ("/readiness", 200)))
    return started


def _serve(what: str) -> None:
    made, changed = server.uvicorn_options, json.loads(os.environ[OPTIONS])
    server.uvicorn_options = lambda settings: {**made(settings), **changed}
    settings = load_settings()
    noop.run(settings) if what == "noop" else processes.run(settings)


if __name__ == "__main__":
    _serve(sys.argv[1]) if len(sys.argv) > 1 else main()
