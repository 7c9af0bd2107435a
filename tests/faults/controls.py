"""Systems with a defect, which the campaign must not pass: so it is known to find such defects in a running system."""

import asyncio
import signal
import sys

from tests.faults.campaign import Fault
from tests.faults.load import expect
from tests.faults.plan import DEADLINE_SECONDS
from tests.faults.rig import Rig, Setup


def broken(defect: str) -> Setup:
    return Setup(workers=1, command=(sys.executable, "-m", "tests.faults.broken", defect))


async def kill_a_worker(rig: Rig) -> None:
    (worker,) = await rig.all_workers()
    await rig.kill(worker.pid)
    await rig.works_again()


async def be_slow(rig: Rig) -> None:
    rig.load.is_slow = True
    await asyncio.sleep(DEADLINE_SECONDS * 5)
    rig.load.is_slow = False


async def lose_what_was_not_flushed(rig: Rig) -> None:
    """Commits do not wait for the disk, and PostgreSQL ends before they come to it."""
    ((definition,),) = await rig.query("select pg_get_functiondef('fastpubsub.begin_call'::regproc)")
    await rig.query(definition.replace("'on', true", "'off', true"))
    await rig.query("checkpoint")
    await rig.load.progress()
    await rig.crash_postgres(signal.SIGQUIT)
    await rig.start_postgres()
    await rig.works_again()


async def meddle(rig: Rig) -> None:
    """With leases, and with what was acked: as a defect in the procedures would."""
    await rig.query("update fastpubsub.leases set expires_at = clock_timestamp()")
    await rig.load.progress()
    await rig.query("delete from fastpubsub.leases")
    await rig.load.progress()
    path = "/subscriptions/t0.all/seek"
    expect(await rig.load.wire().ask("POST", path, {"to": "earliest"}), 204)
    await rig.load.progress()


FORGETFUL = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}

CONTROLS = [
    (Fault("C01", "answers before the commit", kill_a_worker, 3, setup=broken("answers-before-the-commit")), {"lost"}),
    (
        Fault("C02", "does not look at the lease", be_slow, 1, setup=broken("settles-without-a-look-at-the-lease")),
        {"settled_by_others"},
    ),
    (
        Fault("C03", "commits do not wait for the disk", lose_what_was_not_flushed, 1, setup=Setup(postgres=FORGETFUL)),
        {"lost"},
    ),
    (Fault("C04", "leases end early and vanish, acks are forgotten", meddle, 1), {"lost", "overlap", "redelivered"}),
]
"""With what the checker must say, at least."""
