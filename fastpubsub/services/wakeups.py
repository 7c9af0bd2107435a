"""Wakes waiting consumers after changes of this process, notices of others, and a slow poll as a safety net."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import groupby

from fastpubsub.config import Settings
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database, is_unsupported
from fastpubsub.database.connections import Row
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.notices import Notices
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.waiting_lines import WaitingLine, WaitingLines, digest

logger = logging.getLogger(__name__)

POLL_SECONDS_WITHOUT_LISTEN = 0.5
"""At most: then nothing else tells of other processes."""

LOOK_PAUSE_SECONDS = 0.01
HEARD_SECONDS = 0.1
"""In which other processes have heard that somebody waits here."""

SOME = 100
"""Messages that are supposed to be there, when nobody knows how many there are."""


class Wakeups:
    """Passes signals about changes to the lines, here and in other processes.

    New messages wake a line at once. For everything else the database is asked what is ready and when the next retry is
    due: one call for all lines that want to know.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.lines = WaitingLines(settings.pull_max_waiting, self._opened)
        self._database = database
        self._notices = Notices(
            database, settings, self.lines.wake_topic, self.look, self._leave, self.look_everywhere, self.lines.topics
        )
        self._poll_seconds = settings.wake_poll_seconds
        self._to_look: set[SubscriptionKey] = set()
        self._everywhere = False
        self._is_apart = False
        self._wanted = asyncio.Event()

    def published(self, topic_key: int, messages: int) -> None:
        self.lines.wake_topic(topic_key, messages)
        self._notices.publish(topic_key, messages)

    def changed(self, keys: SubscriptionKey) -> None:
        """There may be something else to claim, now or later, than there was."""
        self.look(keys)
        self._notices.change(keys)

    def freed(self, keys: SubscriptionKey) -> None:
        """There is something to claim now."""
        if (line := self.lines.find(keys)) is not None:
            line.wake(SOME)
        self._notices.change(keys)

    def settled(self, keys: SubscriptionKey) -> None:
        """A limited subscription may have room now. Other processes look for themselves."""
        if (line := self.lines.find(keys)) is not None and line.is_limited:
            self.look(keys)

    def limited(self, line: WaitingLine, seconds: float) -> None:
        """A claim found that a limit keeps messages back."""
        line.is_limited = True
        line.look_in(seconds, self.look)

    def left(self, keys: SubscriptionKey, consumer_id: str) -> None:
        consumer = digest(consumer_id)
        self._leave(keys, consumer)
        self._notices.leave(keys, consumer)

    def _leave(self, keys: SubscriptionKey, consumer: str) -> None:
        if (line := self.lines.find(keys)) is not None:
            line.leave(consumer)

    def look(self, keys: SubscriptionKey) -> None:
        if self.lines.find(keys) is not None:
            self._to_look.add(keys)
            self._wanted.set()

    def look_everywhere(self) -> None:
        self._everywhere = True
        self._wanted.set()

    def _opened(self, keys: SubscriptionKey) -> None:
        self._notices.announce(keys.topic_key)
        self.look(keys)
        # What others did before they heard of it.
        asyncio.get_running_loop().call_later(HEARD_SECONDS, self.look, keys)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notices.run())
            group.create_task(self._look_forever())

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        polled = loop.time()
        while True:
            await self._until_wanted(polled + self._pause())
            if self._everywhere or loop.time() >= polled + self._pause():
                polled = loop.time()
                self._everywhere = False
                self._to_look.update(self.lines.in_use())
            if self._to_look:
                await self._look_once()
            await asyncio.sleep(LOOK_PAUSE_SECONDS)

    def _pause(self) -> float:
        if self._notices.is_listening:
            return self._poll_seconds
        return min(self._poll_seconds, POLL_SECONDS_WITHOUT_LISTEN)

    async def _until_wanted(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()

    async def _look_once(self) -> None:
        keys, self._to_look = sorted(self._to_look), set()
        if not self._is_apart:
            with Surviving(logger, "looking for messages of waiting consumers"):
                self._tell_all(keys, await self._ask_together(keys))
        if self._is_apart:
            for topic_key, some in groupby(keys, lambda one: one.topic_key):
                await self._look_at(topic_key, list(some))

    async def _ask_together(self, keys: Sequence[SubscriptionKey]) -> list[Row]:
        """Returns nothing where topics are on several nodes, and remembers it."""
        topics = Array("int8", [key.topic_key for key in keys])
        subscriptions = Array("int8", [key.subscription_key for key in keys])
        try:
            return await self._database.fetch_all("list_ready_subscriptions_2", topics, subscriptions)
        except Exception as error:
            self._is_apart = is_unsupported(error) and await self._database.is_spread(ask_again=True)
            if not self._is_apart:
                raise
            return []

    async def _look_at(self, topic_key: int, keys: Sequence[SubscriptionKey]) -> None:
        """A topic whose node is away stops no other."""
        subscriptions = Array("int8", [key.subscription_key for key in keys])
        with Surviving(logger, "looking for messages of waiting consumers"):
            self._tell_all(keys, await self._database.fetch_all("list_ready_of_topic", topic_key, subscriptions))

    def _tell_all(self, keys: Sequence[SubscriptionKey], rows: Sequence[Row]) -> None:
        found = {keys[place - 1]: row for place, *row in rows}
        for key in keys:
            line = self.lines.find(key)
            if line is not None:
                self._tell(line, *found.get(key, (False, None, False, None)))

    def _tell(
        self, line: WaitingLine, ready: bool, due_seconds: float | None, is_paused: bool, room: int | None
    ) -> None:
        line.pause(is_paused=is_paused)
        line.is_limited = room == 0
        line.look_in(due_seconds, self.look)
        if ready:
            line.wake(SOME if room is None else min(SOME, room))
