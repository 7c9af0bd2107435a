"""Publishes delayed messages when they are due, and notices when schedules are."""

import asyncio
import logging
import time
from collections.abc import Callable

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.turn import Turn

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 1000
_CHUNK_BYTES = 4 << 20
_LOOK_SECONDS = 0.4
_LEAST_SECONDS = 0.01
_TROUBLE_PAUSE_SECONDS = 1.0
_MARK_SECONDS = 30
"""How old the floor of a topic may become: behind it are only rows that were cancelled or moved since."""

_LOOK_BACK_SECONDS = 60.0
"""A schedule that became due longer ago is found by the next full look: whoever looks often walks over no old rows."""

_FULL_LOOK_SECONDS = 60.0

OnPublished = Callable[[int, int], None]
"""Called with the key of a topic and how many messages it got, after their commit: wakes the waiting consumers."""


OnSchedules = Callable[[float | None], None]
"""Called when a schedule is due, with how many seconds ago that may have been; None is any number."""


class DueMessages:
    """Works in the process whose turn it is. That matters only for the load: a message is deleted and appended in one
    transaction that holds the head of its topic, whoever does it.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        counters: Counters,
        turn: Turn,
        on_published: OnPublished = lambda _topic_key, _count: None,
        on_schedules: OnSchedules = lambda _look_back_seconds: None,
    ) -> None:
        self._database = database
        self._max_overdue = settings.delayed_max_overdue_seconds
        self._counters = counters
        self._turn = turn
        self._on_published = on_published
        self._on_schedules = on_schedules
        self._last_full_look: float | None = None

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self._turn.held()
            pause = _TROUBLE_PAUSE_SECONDS
            with Surviving(logger, "publishing delayed messages"):
                pause = await self.step()
            await asyncio.sleep(pause)

    async def step(self) -> float:
        """Publishes a part of what is due in each topic; answers the seconds until the next step."""
        look_back = self._look_back()
        looks = await self._database.fetch_by_node("list_due_topics", _MARK_SECONDS, look_back, None)
        topics = [topic_key for found, *_ in looks for topic_key in found or ()]
        coming = [seconds for _, *times in looks for seconds in times if seconds is not None]
        if any(seconds is not None and seconds <= 0 for *_, seconds in looks):
            self._on_schedules(look_back)
        is_more = [await self._publish(topic_key) for topic_key in topics]
        if any(is_more):
            return 0.0
        soon = [] if topics else [one for one in coming if one > 0]
        return max(min([_LOOK_SECONDS, *map(float, soon)]), _LEAST_SECONDS)

    def _look_back(self) -> float | None:
        now = time.monotonic()
        if self._last_full_look is None or now - self._last_full_look > _FULL_LOOK_SECONDS:
            self._last_full_look = now
            return None
        return _LOOK_BACK_SECONDS

    async def _publish(self, topic_key: int) -> bool:
        """Whether there are more. A topic that fails does not stop the others."""
        with Surviving(logger, f"publishing delayed messages: topic_key={topic_key}"):
            topic_id, count, more = await self._database.fetch_one(
                "publish_due_messages", topic_key, _CHUNK_ROWS, _CHUNK_BYTES, self._max_overdue, _MARK_SECONDS
            )
            if count:
                self._counters.published(topic_id, count)
                self._on_published(topic_key, count)
            return bool(more)
        return False
