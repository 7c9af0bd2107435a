"""Backlogs, dead letters, refused messages and forks, while two servers, PostgreSQL, and the calls between them end."""

import time
from functools import partial

from tests.faults.campaign import Fault
from tests.faults.rig import Rig, Setup
from tests.faults.rows.calls import cut_calls
from tests.faults.rows.databases import end_sessions, kill_session, restart_postgres
from tests.faults.rows.features import kill_last_server

PROCEDURES = ("drop_backlog", "step_redrive", "relay_messages_2", "reject_messages_2", "create_redrive_2")
TAKEN_OVER = """
    select exists (
        select from fastpubsub.jobs as j
        inner join fastpubsub.processes as p on j.holder = p.process::text
        where j.name = 'background' and p.expected_at > %s + interval '3 seconds'
    )
"""
"""By a process that has said so since; what one says holds for 3 seconds."""


async def background_goes_on(rig: Rig) -> float:
    """Seconds until another process has the background work."""
    ((begun,),) = await rig.query("select clock_timestamp()")
    started = time.monotonic()
    await rig.until_found(TAKEN_OVER, True, arguments=[begun])
    return time.monotonic() - started


KEPT = Setup(servers=2, workers=1, kept=True)
PROXY = Setup(servers=2, workers=1, kept=True, through="proxy")
kill = partial(kill_last_server, goes_on=background_goes_on)

FAULTS = [
    Fault("F30", "backlogs, dead letters, forks: kill -9 of a server", kill, 30, 0, KEPT),
    Fault("F30b", "backlogs, dead letters, forks: PostgreSQL crashes", restart_postgres, 20, 0, KEPT),
    Fault("F30c", "backlogs, dead letters, forks: kill -9 of a session's process", kill_session, 20, 0, KEPT),
    Fault("F30d", "backlogs, dead letters, forks: sessions ended", end_sessions, 50, 0, KEPT),
    Fault("F30e", "backlogs, dead letters, forks: calls cut", partial(cut_calls, procedures=PROCEDURES), 9, 0, PROXY),
]
