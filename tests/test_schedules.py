"""Schedules of real servers that are killed."""

import os
import signal
import time
from datetime import datetime, timedelta
from itertools import pairwise

import httpx
import psycopg

from tests.conftest import StartServer
from tests.harness import Server, libpq

SCHEDULES = 20
PATIENCE = 60.0
FIRED = "select count(*) from fastpubsub.messages"


def create(server: Server, **settings: object) -> None:
    httpx.post(f"{server.base_url}/topics", json={"id": "t"}).raise_for_status()
    for number in range(SCHEDULES):
        body = {"id": f"s-{number}", "interval_seconds": 1, **settings}
        httpx.post(f"{server.base_url}/topics/t/schedules", json=body).raise_for_status()


def wait_until(watching: psycopg.Connection, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        row = watching.execute(FIRED).fetchone()
        if row is not None and row[0] >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the messages did not come")


def test_killing_servers_misses_no_time_and_fires_none_twice(server: StartServer, database_url: str) -> None:
    """They die while schedules fire all the time."""
    first, second, third = server(), server(), server()
    create(first, catch_up="all")
    with psycopg.connect(libpq(database_url), autocommit=True) as watching:
        for dying, come in ((third, SCHEDULES), (second, 3 * SCHEDULES)):
            wait_until(watching, come)
            os.killpg(dying.process.pid, signal.SIGKILL)
            dying.process.wait()
            dying.exit_code = 0
        row = watching.execute(FIRED).fetchone()
        assert row is not None
        wait_until(watching, row[0] + 5 * SCHEDULES)
        rows = watching.execute(
            "select attributes ->> 'schedule_id', attributes ->> 'scheduled_at'"
            " from fastpubsub.messages order by position"
        ).fetchall()
    times: dict[str, list[datetime]] = {}
    for schedule, at in rows:
        times.setdefault(schedule, []).append(datetime.fromisoformat(at))
    assert len(times) == SCHEDULES
    for found in times.values():
        assert all(later - earlier == timedelta(seconds=1) for earlier, later in pairwise(found))
    shown = httpx.get(f"{first.base_url}/topics/t/schedules?limit=100").json()["data"]
    assert {one["missed"] for one in shown} == {0}
