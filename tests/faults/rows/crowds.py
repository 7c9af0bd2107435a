"""Many endpoints at once, without a load: what they cost publishers, who are processes of their own."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests import harness
from tests.faults.campaign import Fault, Figures
from tests.faults.load import expect
from tests.faults.rig import SOON, Rig, Setup
from tests.pages import ROOT

SLOWER = 1.5
"""Times the 99th percentile of a publish, at most, while endpoints are silent."""

ENDPOINTS_OF_A_TOPIC = 10
ROUND_SECONDS = 10.0
"""In which each endpoint is due one message."""


async def crowd(rig: Rig) -> Figures:
    """Half of them never answer, and neither publishers nor the others notice."""
    count, rounds = (1000, 6) if rig.is_whole else (40, 1)
    topics, port, wire = count // ENDPOINTS_OF_A_TOPIC, harness.free_port(), rig.load.wire()
    for topic in ("quiet", *[f"crowd-{number}" for number in range(topics)]):
        expect(await wire.ask("POST", "/topics", {"id": topic}), 201)
    for number in range(count):
        body = {"id": f"crowd-{number}", "topic_id": f"crowd-{number % topics}"}
        expect(await wire.ask("POST", "/subscriptions", body), 201)
    async with running("endpoints", port):
        before = await publish_to_crowd(rig, topics, rounds)
        await push_to_crowd(rig, count, port)
        meanwhile = await publish_to_crowd(rig, topics, rounds)
        counts = rig.load.wire(lambda: ("127.0.0.1", port))
        until = time.monotonic() + SOON
        while (got := sorted((await counts.ask("GET", "/counts")).json().values())) != [rounds] * (count // 2):
            assert time.monotonic() < until, f"those that answer have not got all: {got}"
            await asyncio.sleep(0.1)
        await push_to_crowd(rig, count, None)
        after = await publish_to_crowd(rig, topics, rounds)
    ratio = meanwhile / max(before, after)
    assert not rig.is_whole or ratio <= SLOWER, f"the 99th percentile of a publish is {ratio:.2f} times as long"
    return {"endpoints": count, "p99_without_ms": max(before, after) * 1000, "p99_ms": meanwhile * 1000}


async def push_to_crowd(rig: Rig, count: int, port: int | None) -> None:
    """What comes from now on; to nobody without a port."""
    wire = rig.load.wire()
    for number in range(count):
        endpoint = f"http://127.0.0.1:{port}/endpoint-{number}"
        push = None if port is None else {"endpoint": endpoint, "timeout_seconds": 2}
        expect(await wire.ask("POST", f"/subscriptions/crowd-{number}/seek", {"to": "latest"}), 204)
        expect(await wire.ask("PATCH", f"/subscriptions/crowd-{number}", {"push": push}), 200)


async def publish_to_crowd(rig: Rig, topics: int, rounds: int) -> float:
    """So many messages to each topic; returns the 99th percentile of publishes to another one meanwhile, in seconds."""
    _, port = rig.load.addresses[0]
    seconds = rounds * ROUND_SECONDS
    async with (
        running("fill", port, topics, ROUND_SECONDS, rounds) as filling,
        running("measure", port, seconds) as one,
    ):
        measured, _ = await one.communicate()
        await filling.wait()
    assert (one.returncode, filling.returncode) == (0, 0)
    return float(measured)


@asynccontextmanager
async def running(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "tests.faults.crowd", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


FAULTS = [
    Fault("P10", "a thousand endpoints, half of them silent", crowd, 1, 0, Setup(workers=1, load=False, pushed=True))
]
