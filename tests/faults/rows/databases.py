"""A PostgreSQL that crashes, hangs, refuses, or is full."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import psutil
import psycopg

from tests import harness
from tests.faults.campaign import Fault, Figures
from tests.faults.rig import Rig, Setup

CALL_SECONDS = 3
"""After which a server gives up a call: shorter than its default, so that runs are."""

SOON_ANSWERED = {"database_call_timeout_seconds": CALL_SECONDS}
SERVER = "application_name = 'fastpubsub' and pid <> pg_backend_pid()"


async def kill_session(rig: Rig) -> Figures:
    """PostgreSQL ends all the others and recovers."""
    sessions = await rig.query(f"select pid from pg_stat_activity where {SERVER}")
    await rig.kill(rig.random.choice(sessions)[0], crash=True)
    await rig.until(lambda: not any(psutil.pid_exists(pid) for (pid,) in sessions), "sessions outlive a crash")
    rig.history.note("crashed")
    return {"works_s": await rig.works_again()}


async def kill_postmaster(rig: Rig) -> Figures:
    await rig.crash_postgres(signal.SIGKILL)
    await rig.start_postgres()
    return {"works_s": await rig.works_again()}


async def stop_immediately(rig: Rig) -> Figures:
    await rig.crash_postgres(signal.SIGQUIT)
    await rig.start_postgres()
    return {"works_s": await rig.works_again()}


async def restart_postgres(rig: Rig) -> Figures:
    """After a crash of either kind."""
    await rig.crash_postgres(rig.random.choice([signal.SIGQUIT, signal.SIGKILL]))
    await rig.start_postgres()
    return {"works_s": await rig.works_again()}


async def end_sessions(rig: Rig) -> Figures:
    """A few of them, as an administrator does."""
    await rig.busy()
    query = f"select pg_terminate_backend(pid) from pg_stat_activity where {SERVER} order by random() limit 5"
    ended = await rig.query(query)
    return {"sessions_ended": len(ended), "works_s": await rig.works_again()}


async def hang(rig: Rig, stop: Callable[[], None], go_on: Callable[[], None]) -> Figures:
    """Every request is answered all the same, with 503, and liveness as always."""
    await rig.busy()
    memory = sum(one.memory_info().rss for one in rig.workers())
    stop()
    try:
        slowest = await probe_liveness(rig, CALL_SECONDS * 2)
    finally:
        go_on()
    works = await rig.works_again()
    waited = max(call.ended - call.begun for call in rig.history.calls() if call.ended != float("inf"))
    assert waited < CALL_SECONDS * 4, f"a request took {waited:.1f} s"
    grown = (sum(one.memory_info().rss for one in rig.workers()) - memory) / 2**20
    assert grown < 50, f"{grown:.0f} MB more"
    return {"liveness_ms": slowest * 1000, "longest_request_s": waited, "works_s": works, "grown_mb": max(grown, 0)}


async def probe_liveness(rig: Rig, seconds: float) -> float:
    """The slowest answer."""
    slowest = 0.0
    wire = rig.load.wire()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.monotonic()
        assert (await wire.ask("GET", "/liveness")).status == 200
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.05)
    wire.close()
    assert slowest < 2, f"liveness took {slowest:.1f} s"
    return slowest


async def black_hole(rig: Rig) -> Figures:
    return await hang(rig, rig.proxy.pause, rig.proxy.resume)


async def pause_postgres(rig: Rig) -> Figures:
    assert rig.postgres.pid is not None
    postmaster = psutil.Process(rig.postgres.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    return await hang(rig, lambda: signal_all(family, signal.SIGSTOP), lambda: signal_all(family, signal.SIGCONT))


def signal_all(family: list[psutil.Process], number: signal.Signals) -> None:
    for process in family:
        if process.is_running():
            os.kill(process.pid, number)


async def while_locked(rig: Rig, statement: str, seconds: float, during: Callable[[], Awaitable[float]]) -> float:
    connection = await psycopg.AsyncConnection.connect(harness.libpq(rig.database_url))
    async with connection:
        await connection.execute(statement.encode())
        return await during()


async def lock_everything(rig: Rig) -> Figures:
    """The pool runs out; readiness has a connection of its own."""

    async def probe() -> float:
        slowest = 0.0
        async with AsyncExitStack() as stack:
            wire = rig.load.wire()
            stack.callback(wire.close)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                started = time.monotonic()
                await wire.ask("GET", "/readiness")
                slowest = max(slowest, time.monotonic() - started)
                await asyncio.sleep(0.05)
        return slowest

    before = len(rig.history.calls())
    await rig.busy()
    slowest = await while_locked(rig, "lock table fastpubsub.cursors, fastpubsub.heads", 5, probe)
    assert slowest < 2, f"readiness took {slowest:.1f} s"
    works = await rig.works_again()
    waited = max(call.ended - call.begun for call in rig.history.calls()[before:] if call.ended != float("inf"))
    assert waited < 10, f"a request took {waited:.1f} s, with a lock timeout and a pool timeout of 2 s each"
    return {"readiness_ms": slowest * 1000, "longest_request_s": waited, "works_s": works}


async def take_no_writes(rig: Rig) -> Figures:
    """As after a failover that left this server behind."""
    for setting in ("on", "off"):
        await rig.query(f"alter system set default_transaction_read_only = {setting}")
        await rig.query("select pg_reload_conf()")
        await rig.query(f"select pg_terminate_backend(pid) from pg_stat_activity where {SERVER}")
        if setting == "on":
            await rig.until_answered("/readiness", 503)
    await rig.until_answered("/readiness", 200)
    return {"works_s": await rig.works_again()}


PROXY = Setup(through="proxy", settings=SOON_ANSWERED)

FAULTS = [
    Fault("F04", "kill -9 of a session's process", kill_session, 60, 0),
    Fault("F04b", "kill -9 of the postmaster", kill_postmaster, 40, 0),
    Fault("F04c", "immediate stop", stop_immediately, 20, 0),
    Fault("F05", "sessions ended by pg_terminate_backend", end_sessions, 100, 0),
    Fault("F07", "network to the database goes silent", black_hole, 5, 0, PROXY),
    Fault("F07b", "PostgreSQL is paused", pause_postgres, 5, 0, Setup(settings=SOON_ANSWERED)),
    Fault("F08", "tables locked, pool exhausted (F15: lock timeout)", lock_everything, 5, 0),
    Fault("F09", "read-only", take_no_writes, 10, 0),
]
