"""`python -m tests.faults.soak --minutes 60`: a slow load for long; sessions end and consumers are slow now and then.

What grows is measured every few seconds and said as a slope of the second half, per hour; 8 hours are 8 times that.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests import harness
from tests.faults import campaign
from tests.faults.campaign import Fault, Figures
from tests.faults.report import table
from tests.faults.rig import Rig, Setup
from tests.faults.rows.databases import end_sessions
from tests.faults.rows.processes import pause_consumers

SAMPLE_SECONDS = 5.0
DISTURB_SECONDS = 60.0
LONG_SECONDS = 1800.0
"""A slope of less says nothing."""

MB_PER_HOUR = 5.0
"""Of all workers together; it may be less than what one sample differs from the next."""


class Sample(NamedTuple):
    hours: float
    memory_mb: float
    descriptors: int
    sessions: int
    dead_for_each_live: float


class Soak:
    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.samples: list[Sample] = []

    async def run(self, rig: Rig) -> Figures:
        started = disturbed = time.monotonic()
        while (now := time.monotonic()) < started + self.seconds:
            self.samples.append(await sample(rig, (now - started) / 3600))
            if now > disturbed + DISTURB_SECONDS:
                disturbed = now
                await rig.random.choice([end_sessions, pause_consumers])(rig)
            rig.load.fail_early()
            await asyncio.sleep(SAMPLE_SECONDS)
        late = self.samples[len(self.samples) // 2 :]
        memory = slope(late, [one.memory_mb for one in late])
        assert memory < MB_PER_HOUR or self.seconds < LONG_SECONDS, f"{memory:.1f} MB more each hour"
        most = max(one.sessions for one in late)
        assert most <= campaign.SESSIONS * rig.setup.workers, f"{most} sessions"
        return {
            "memory_at_start_mb": self.samples[0].memory_mb,
            "memory_at_end_mb": late[-1].memory_mb,
            "MB an hour": memory,
            "MB in 8 hours": memory * 8,
            "sessions at most": most,
            "descriptors an hour": slope(late, [one.descriptors for one in late]),
            "dead rows for each live one": max(one.dead_for_each_live for one in late),
        }


async def sample(rig: Rig, hours: float) -> Sample:
    ((sessions,),) = await rig.query("select count(*) from pg_stat_activity where application_name = 'fastpubsub'")
    ((dead, live),) = await rig.query(
        "select sum(n_dead_tup), sum(n_live_tup) from pg_stat_user_tables where schemaname = 'fastpubsub'"
    )
    workers = rig.workers()
    memory = sum(one.memory_info().rss for one in workers) / 2**20
    return Sample(hours, memory, sum(one.num_fds() for one in workers), sessions, float(dead) / max(1.0, float(live)))


def slope(samples: Sequence[Sample], values: Sequence[float]) -> float:
    """Per hour, by least squares."""
    return statistics.linear_regression([one.hours for one in samples], values).slope if len(samples) > 2 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    arguments = parser.parse_args()
    # Messages go soon, so that what is kept does not look like a leak.
    settings = {"cleanup_acked_messages_older_than_seconds": 60, "trim_interval_seconds": 5}
    setup = Setup(pace=10, settings=settings, command=(str(harness.COMMAND),))
    fault = Fault("F24", f"soak of {arguments.minutes:g} minutes", Soak(arguments.minutes).run, setup=setup)
    result = asyncio.run(campaign.run(fault, 1, 1))
    print(table([result]))
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
