"""Times, limits and transactions, while two servers, PostgreSQL, and the calls between them end at any moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tests.faults.campaign import Fault, Figures
from tests.faults.load import addresses_of
from tests.faults.rig import Rig, Setup, accepts
from tests.faults.rows.calls import cut_calls
from tests.faults.rows.databases import end_sessions, kill_session, restart_postgres

PROCEDURES = ("publish_due_messages", "fire_schedule", "run_transaction", "relay_messages_2", "purge_dead_letters")


async def kill_last_server(rig: Rig, goes_on: Callable[[Rig], Awaitable[float]]) -> Figures:
    """The server that started last has the background work, and is killed; the other takes over before it is back."""
    victim = rig.servers.pop()
    (address,) = addresses_of([victim.base_url])
    workers = rig.workers(victim)
    started = time.monotonic()
    await rig.kill(victim.process.pid)
    for worker in workers:
        worker.kill()  # which would give its work to others, left alone
    victim.exit_code = await asyncio.to_thread(victim.process.wait)
    rig.load.addresses.remove(address)
    taken_over = await goes_on(rig)
    await rig.until(lambda: not accepts(address), "the port stays taken")
    rig.servers.append(server := rig.start_server(port=address[1]))
    await rig.ready(server)
    rig.load.addresses.append(address)
    return {"taken_over_s": taken_over, "serving_s": time.monotonic() - started, "works_s": await rig.works_again()}


async def due_goes_on(rig: Rig) -> float:
    """Seconds until a schedule has fired whose time was after the beginning."""
    ((begun,),) = await rig.query("select clock_timestamp()")
    started = time.monotonic()
    await rig.until_found("select bool_or(last_fired_at > %s) from fastpubsub.schedules", True, arguments=[begun])
    return time.monotonic() - started


FEATURED = Setup(servers=2, workers=1, featured=True)
PROXY = Setup(servers=2, workers=1, featured=True, through="proxy")
kill = partial(kill_last_server, goes_on=due_goes_on)

FAULTS = [
    Fault("F29", "times and limits: kill -9 of a server", kill, 30, 1, FEATURED),
    Fault("F29b", "times and limits: PostgreSQL crashes", restart_postgres, 20, 0, FEATURED),
    Fault("F29c", "times and limits: kill -9 of a session's process", kill_session, 20, 0, FEATURED),
    Fault("F29d", "times and limits: sessions ended", end_sessions, 50, 0, FEATURED),
    Fault("F29e", "times and limits: calls cut", partial(cut_calls, procedures=PROCEDURES), 9, 0, PROXY),
]
