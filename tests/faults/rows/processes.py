"""Processes of the server that die, stop, or sleep."""

import asyncio
import signal
import time
from contextlib import suppress

from tests import harness
from tests.faults.campaign import Fault, Figures
from tests.faults.load import addresses_of
from tests.faults.plan import DEADLINE_SECONDS
from tests.faults.rig import SOON, Rig, Setup, accepts
from tests.faults.wire import Address


async def kill_worker(rig: Rig) -> Figures:
    victim = rig.random.choice(await rig.all_workers())
    await rig.kill(victim.pid)
    replaced = await rig.until(
        lambda: victim.pid not in [one.pid for one in rig.workers()] and len(rig.workers()) >= rig.setup.workers,
        "the worker was not replaced",
    )
    return {"replaced_s": replaced, "works_s": await rig.works_again()}


async def kill_master(rig: Rig) -> Figures:
    """Under a supervisor that starts it again on the same port."""
    workers = await rig.all_workers()
    (address,) = rig.load.addresses
    await rig.kill(rig.server.process.pid)
    rig.server.exit_code = await asyncio.to_thread(rig.server.process.wait)
    started = time.monotonic()
    gone = await rig.until(lambda: not any(one.is_running() for one in workers), "workers outlive their master")
    await rig.until(lambda: not accepts(address), "the port stays taken")
    rig.servers = [rig.start_server(port=address[1])]
    await rig.ready(rig.server)
    return {"workers_gone_s": gone, "serving_s": time.monotonic() - started, "works_s": await rig.works_again()}


async def restart_in_turn(rig: Rig) -> Figures:
    """Each server, behind a balancer that asks for readiness: nobody notices."""
    before = len(rig.history.events)
    seconds = [await restart(rig, old) for old in list(rig.servers)]
    failed = [event for event in rig.history.events[before:] if event.kind in ("unknown", "refused")]
    assert not failed, f"{len(failed)} requests failed, as {failed[0]}"
    return {"restarts": len(seconds), "stopped_s": max(seconds)}


async def restart(rig: Rig, old: harness.Server) -> float:
    """Seconds that it took to stop."""
    (address,) = addresses_of([old.base_url])
    old.process.send_signal(signal.SIGTERM)
    probe = rig.load.wire(lambda: address)
    while (await probe.ask("GET", "/readiness")).status == 200:
        pass
    rig.load.addresses.remove(address)
    started = time.monotonic()
    old.exit_code = await asyncio.to_thread(old.process.wait, SOON)
    seconds = time.monotonic() - started
    assert old.exit_code == 0, f"the server ended with {old.exit_code}"
    rig.servers.remove(old)
    rig.servers.append(new := rig.start_server())
    await rig.ready(new)
    rig.load.addresses += addresses_of([new.base_url])
    await rig.load.progress(10)
    return seconds


async def pause_worker(rig: Rig) -> Figures:
    """For longer than leases last: what it has pulled for others is with somebody else when it goes on."""
    victim = rig.random.choice(await rig.all_workers())
    await rig.busy()
    victim.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(DEADLINE_SECONDS * 1.5)
    finally:
        victim.send_signal(signal.SIGCONT)
    return {"works_s": await rig.works_again()}


async def pause_consumers(rig: Rig) -> Figures:
    """All of them hold what they have for longer than their leases last, and settle then."""
    before = len(rig.history.events)
    rig.load.is_slow = True
    await asyncio.sleep(DEADLINE_SECONDS * 3)
    rig.load.is_slow = False
    refused = [
        one for event in rig.history.events[before:] if event.op in ("acks", "nacks") for one in late(event.value)
    ]
    return {"late": len(refused), "works_s": await rig.works_again()}


def late(answer: dict[str, list[str]]) -> list[str]:
    return [*answer.get("stale", []), *answer.get("gone", [])]


async def kill_sweepers(rig: Rig) -> Figures:
    """Three at once beside those of the servers, killed somewhere in their work, while leases end."""
    started = time.monotonic()
    assert await (await rig.run_command("cleanup_stuck_messages")).wait() == 0
    whole = time.monotonic() - started
    sweepers = [await rig.run_command("cleanup_stuck_messages") for _ in range(3)]
    await asyncio.sleep(rig.random.uniform(0.5, 1.0) * whole)
    killed = 0
    for sweeper in sweepers:
        with suppress(ProcessLookupError):
            sweeper.kill()
        killed += await sweeper.wait() == -signal.SIGKILL
    return {"sweepers_killed": killed}


async def storm(rig: Rig) -> Figures:
    """Many connections that say nothing, while others work."""
    (address,) = rig.load.addresses
    before = sum(one.num_fds() for one in await rig.all_workers())
    opened = await asyncio.gather(*(connected(address) for _ in range(1500)))
    connected_ = [one for one in opened if one is not None]
    seconds = await rig.works_again()
    for writer in connected_:
        writer.transport.abort()
    await rig.until(
        lambda: sum(one.num_fds() for one in rig.workers()) < before + 50, "file descriptors of the storm are left"
    )
    return {"connections": len(connected_), "works_s": seconds}


async def connected(address: Address) -> asyncio.StreamWriter | None:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            return (await asyncio.open_connection(*address))[1]
    return None


FAULTS = [
    Fault("F01", "kill -9 of a worker", kill_worker, 150, 0),
    Fault("F02", "kill -9 of the master", kill_master, 30, 0),
    Fault(
        "F03",
        "restart of one server after the other",
        restart_in_turn,
        10,
        0,
        Setup(servers=2, workers=1, settings={"api_shutdown_delay_seconds": 1}),
    ),
    Fault("F12", "a worker paused for longer than leases", pause_worker, 10, 0),
    Fault("F12b", "consumers paused for longer than leases", pause_consumers, 10, 0),
    Fault("F21", "sweepers at once, killed", kill_sweepers, 20, 0),
    Fault("F23", "1,500 idle connections at once", storm, 5, 0),
]
