"""More than there is room or time for: full disks, backlogs, floods, callers that take their time."""

import asyncio
import os
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.faults.campaign import Fault, Figures
from tests.faults.load import expect
from tests.faults.rig import SOON, Rig, Setup
from tests.faults.wire import Address, Wire, request_bytes

KEY = "0123456789abcdef" * 4
WRONG = {"client_id": "550e8400-e29b-41d4-a716-446655440000", "client_secret": "wrong"}
ENOUGH = 20.0
"""Seconds: a caller that is still served then is too slow for us to wait for."""


async def fill_the_disk(rig: Rig) -> Figures:
    """Until nothing more can be stored; then there is room again, and the servers go on as they were."""
    filler = rig.folder / "postgres" / "filler"
    refused = rig.load.statuses[503]
    rig.history.note("crash")  # PostgreSQL may end and recover: full WAL is a reason to
    filled = False
    while not filled:
        filled = fill(filler)
    await rig.until(lambda: rig.load.statuses[503] > refused + 20, "nothing was refused on a full disk")
    filler.unlink()
    if not await is_up(rig):
        await asyncio.to_thread(rig.postgres.stop)
        await rig.start_postgres()
    rig.history.note("crashed")
    return {"works_s": await rig.works_again(), "refused": rig.load.statuses[503] - refused}


def fill(filler: Path) -> bool:
    """Whether PostgreSQL did not take of the room meanwhile."""
    with filler.open("wb") as file, suppress(OSError):
        free = os.statvfs(filler)
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail - 4) * free.f_frsize)
        return True
    return False


async def is_up(rig: Rig) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            await rig.query("select 1")
            return True
        except psycopg.OperationalError:
            await asyncio.sleep(0.1)
    return False


async def big_backlog(rig: Rig) -> Figures:
    """A million messages that nobody has read, half of them leased: neighbours and pulls do not notice."""
    size = 1_000_000 if rig.is_whole else 100_000
    wire = rig.load.wire()
    expect(await wire.ask("POST", "/topics", {"id": "big"}), 201)
    for name in ("big", "leased"):
        body = {"id": name, "topic_id": "big", "ack_deadline_seconds": 600}
        expect(await wire.ask("POST", "/subscriptions", body), 201)
    expect(await wire.ask("POST", "/topics/big/messages", [{"n": 0}] * 1000), 204)
    small = await pull_seconds(rig, "big", 100)
    ((key,),) = await rig.query("select topic_key from fastpubsub.topics where id = 'big'")
    for _ in range(size // 10_000):
        await rig.query(
            "select fastpubsub.publish_messages(%s, array_agg(json_build_object('n', n)))"
            " from generate_series(1, 10000) as n",
            key,
        )
    ((subscription,),) = await rig.query("select subscription_key from fastpubsub.subscriptions where id = 'leased'")
    for _ in range(size // 20_000):
        await rig.query(
            "select count(*) from fastpubsub.claim_messages_2"
            "(%s, %s, array[10000], array['c'], 1073741824, 50000, 1000)",
            key,
            subscription,
        )
    full = await pull_seconds(rig, "big", 100)
    started = time.monotonic()
    metrics = expect(await wire.ask("GET", "/subscriptions/leased/metrics"), 200).json()
    metrics_seconds = time.monotonic() - started
    assert metrics["delivered"] >= size // 4, metrics
    started = time.monotonic()
    expect(await wire.ask("DELETE", "/topics/big"), 204)
    deleted = time.monotonic() - started
    works = await rig.works_again()
    await rig.until_found("select count(*) from fastpubsub.purges", 0, seconds=SOON * 4)
    assert metrics_seconds < 5, metrics
    assert deleted < 5
    return {
        "pull_before_p99_ms": small * 1000,
        "pull_p99_ms": full * 1000,
        "metrics_ms": metrics_seconds * 1000,
        "delete_ms": deleted * 1000,
        "works_s": works,
        "backlog": size,
    }


async def pull_seconds(rig: Rig, subscription: str, times: int) -> float:
    """The 99th percentile of pulls of 10."""
    wire = rig.load.wire()
    taken = []
    for _ in range(times):
        started = time.monotonic()
        expect(await wire.ask("GET", f"/subscriptions/{subscription}/messages?consumer_id=c&batch_size=10"), 200)
        taken.append(time.monotonic() - started)
    wire.close()
    return sorted(taken)[len(taken) * 99 // 100]


async def flood_of_hashes(rig: Rig) -> Figures:
    """Every wrong secret is hashed: few at once, and others notice little."""
    return await flood_of_logins(rig, {401, 503})


async def flood_of_guesses(rig: Rig) -> Figures:
    """Few of them are hashed: who guesses has to wait, and whose secret is right does not, from the same address."""
    wire = rig.load.wire()
    client_id, secret = await create_client(rig)
    right = {"client_id": client_id, "client_secret": secret}
    expect(await wire.ask("POST", "/oauth/token", right), 201)
    while (await wire.ask("POST", "/oauth/token", WRONG)).status == 401:
        pass
    figures = await flood_of_logins(rig, {401, 429})
    assert figures["refused"] > figures["logins"] / 2, figures
    expect(await wire.ask("POST", "/oauth/token", right), 201)
    return figures


async def create_client(rig: Rig) -> tuple[str, str]:
    """Its id and its secret."""
    command = await rig.run_command("create_client", "login", "*", printing=True)
    printed, _ = await command.communicate()
    found = dict(line.split("=", 1) for line in printed.decode().split())
    return found["client_id"], found["client_secret"]


async def flood_of_logins(rig: Rig, expected: set[int]) -> dict[str, float]:
    wire = rig.load.wire()
    calm = await liveness_p99(wire, 3)
    stopping = asyncio.Event()
    memory = sum(one.memory_info().rss for one in rig.workers())
    flood = [asyncio.create_task(log_in_wrongly(rig, stopping)) for _ in range(25)]
    flooded = await liveness_p99(wire, 5)
    grown = (sum(one.memory_info().rss for one in rig.workers()) - memory) / 2**20
    stopping.set()
    statuses = Counter(status for found in await asyncio.gather(*flood) for status in found)
    assert statuses.keys() <= expected, statuses
    assert flooded < 1, f"liveness took {flooded:.2f} s"
    assert grown < 128, f"{grown:.0f} MB more"
    return {
        "logins": statuses.total(),
        "refused": statuses[429],
        "calm_p99_ms": calm * 1000,
        "flooded_p99_ms": flooded * 1000,
        "grown_mb": grown,
    }


async def log_in_wrongly(rig: Rig, stopping: asyncio.Event) -> list[int]:
    wire = rig.load.wire()
    statuses = []
    while not stopping.is_set():
        statuses.append((await wire.ask("POST", "/oauth/token", WRONG)).status)
        await asyncio.sleep(0.5)
    wire.close()
    return statuses


async def liveness_p99(wire: Wire, seconds: float) -> float:
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        expect(await wire.ask("GET", "/liveness"), 200)
        taken.append(time.monotonic() - started)
        await asyncio.sleep(0.01)
    return sorted(taken)[len(taken) * 99 // 100]


async def be_slow(rig: Rig) -> Figures:
    """Heads and bodies that come by the byte are cut off; who does not read answers harms nobody."""
    (address,) = rig.load.addresses
    request = request_bytes("POST", "/topics/t0/messages", [{"late": True}] * 50)
    pull = request_bytes("GET", "/topics")
    kinds = [(request[:20], b"x"), (request[:-30], b"x"), (pull * 200, b"")]
    slow = [asyncio.create_task(drip(address, start, byte)) for start, byte in kinds for _ in range(30)]
    works = await rig.works_again()
    seconds = await asyncio.gather(*slow)
    heads, bodies = max(seconds[:30]), max(seconds[30:60])
    assert max(heads, bodies) < ENOUGH, "a caller that is too slow keeps its connection"
    return {"works_s": works, "head_closed_s": heads, "body_closed_s": bodies}


async def drip(address: Address, start: bytes, byte: bytes) -> float:
    """Seconds until the server has had enough; without a byte to send it just leaves after a while."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(start)
        while not reader.at_eof() and time.monotonic() - started < (ENOUGH if byte else 3):
            writer.write(byte)
            try:
                async with asyncio.timeout(0.25):
                    if byte and not await reader.read(100):
                        break
            except TimeoutError:
                continue
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return time.monotonic() - started


# Without the bound on wrong secrets, so that every one of them is hashed.
BOUNDLESS = {"auth_max_failures_per_client": 0, "auth_max_failures_per_address": 0}
AUTH = {"auth_enabled": True, "auth_secret_key": KEY}


def may_mount() -> bool:
    """Who is root in a container may often not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode == 0


IMPATIENT = Setup(settings={"api_header_timeout_seconds": 2, "api_body_timeout_seconds": 2})

FAULTS = [
    Fault("F11", "slow heads, bodies and readers, 90 at once", be_slow, 5, 0, IMPATIENT),
    Fault("F16", "disk full", fill_the_disk, 5, 1, Setup(memory_mb=256), possible=may_mount()),
    Fault(
        "F22",
        "backlog of a million, half of it leased",
        big_backlog,
        1,
        0,
        Setup(settings={"trim_interval_seconds": 1}),
    ),
    Fault(
        "F28",
        "25 callers with wrong secrets, all hashed",
        flood_of_hashes,
        2,
        setup=Setup(load=False, workers=1, settings={**AUTH, **BOUNDLESS}),
    ),
    Fault(
        "F28b",
        "the same against the limits on wrong secrets",
        flood_of_guesses,
        1,
        setup=Setup(load=False, workers=1, settings=AUTH),
    ),
]
