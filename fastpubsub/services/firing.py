"""Publishes the messages of schedules when their times come."""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import InvalidRequest
from fastpubsub.services.schedules import Firing, Plan, fire_schedule
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.topic_schemas import TopicSchemas
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.timetables import Timetable

logger = logging.getLogger(__name__)

MOST_MISSED = 1000
"""Times of a schedule that are looked at in one go."""

_CHUNK_SCHEDULES = 100
_CHUNK_MESSAGES = 100
_CHUNK_BYTES = 1 << 20
_GRACE = timedelta(seconds=60)
"""A time that is not older than this was not missed."""

_REASON_MAX = 1000


class Due(NamedTuple):
    """A schedule whose time has come, as it is in the database at `now`."""

    topic_key: int
    topic_id: str
    id: str
    revision: int
    payload: bytes
    cron: str | None
    time_zone: str | None
    interval_seconds: int | None
    catch_up: str
    next_at: datetime
    now: datetime

    @property
    def firing(self) -> Firing:
        return Firing(self.topic_key, self.id, self.revision, self.next_at)


class Schedulers:
    """Works when it is told that something is due. Several processes do no harm: each time fires in one of them."""

    def __init__(self, database: Database, settings: Settings, counters: Counters, wakeups: Wakeups) -> None:
        self._database = database
        self._max_overdue = timedelta(seconds=settings.delayed_max_overdue_seconds)
        self._counters = counters
        self._wakeups = wakeups
        self._schemas = TopicSchemas(database)
        self._look_back: float | None = None
        self._is_due = asyncio.Event()

    def look(self, look_back_seconds: float | None) -> None:
        """Something is due that was so at most that many seconds ago; None: at any time."""
        if not self._is_due.is_set() or self._look_back is not None:
            self._look_back = look_back_seconds
        self._is_due.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            with Surviving(logger, "firing schedules"):
                while await self.step():
                    pass

    async def step(self) -> bool:
        """Fires a part of what is due; whether that has moved something, so that there may be more."""
        rows = await self._database.fetch_by_node("list_due_schedules", _CHUNK_SCHEDULES, self._look_back, None)
        return any([await self._fire(Due(*row)) for row in rows])

    async def _fire(self, due: Due) -> bool:
        """One that fails does not stop the others."""
        with Surviving(logger, f"firing a schedule: topic_id={due.topic_id} schedule_id={due.id}"):
            try:
                plan = plan_of(due, self._max_overdue)
            except InvalidRequest as error:
                return await self._give_up(due, Plan([], 1, None), error.detail)
            try:
                fired = await fire_schedule(self._database, self._schemas, due.firing, due.payload, plan)
            except InvalidRequest as error:
                return await self._give_up(due, plan, error.detail)
            if fired is not None:
                self._count(due, plan.missed, fired)
            return True
        return False

    async def _give_up(self, due: Due, plan: Plan, problem: str) -> bool:
        missed = plan.missed + len(plan.times)
        arguments = (Array("timestamptz", []), missed, plan.next_at, problem[:_REASON_MAX])
        fired, _, _ = await self._database.fetch_one("fire_schedule", *due.firing, *arguments)
        if fired is not None:
            logger.error("a schedule cannot publish: topic_id=%s schedule_id=%s: %s", due.topic_id, due.id, problem)
            self._count(due, missed, 0)
        return True

    def _count(self, due: Due, missed: int, fired: int) -> None:
        self._counters.missed(due.topic_id, missed)
        if fired:
            self._counters.fired(due.topic_id, fired)
            self._counters.published(due.topic_id, fired)
            self._wakeups.published(due.topic_key, fired)
        if missed:
            logger.warning(
                "times of a schedule were missed: topic_id=%s schedule_id=%s missed=%d", due.topic_id, due.id, missed
            )


def plan_of(due: Due, max_overdue: timedelta) -> Plan:
    """What is overdue by more than `max_overdue` is given up; for the rest `catch_up` decides.

    Raises InvalidRequest when the expression or the time zone is not known any more.
    """
    timetable = Timetable(due.cron, due.time_zone, due.interval_seconds)
    oldest = due.now - max_overdue
    after = timetable.after(due.now, due.next_at)
    late: list[datetime] = []
    first: datetime | None = due.next_at
    if due.next_at < oldest:
        late = timetable.from_(due.next_at, oldest, MOST_MISSED)
        first = timetable.after(oldest, due.next_at)
    times = [] if first is None else timetable.from_(first, due.now, MOST_MISSED)
    if due.catch_up == "all" and times:
        chunk = max(min(_CHUNK_MESSAGES, _CHUNK_BYTES // len(due.payload)), 1)
        return Plan(times[:chunk], len(late), times[chunk] if len(times) > chunk else after)
    kept = times[-1:]
    if due.catch_up == "none":
        kept = [time for time in kept if time >= due.now - _GRACE]
    return Plan(kept, len(late) + len(times) - len(kept), after)
