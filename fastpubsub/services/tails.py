"""Follows topics without a subscription: a topic has one reader per process for all of its listeners.

What a listener's filter keeps out is sifted here, so that it costs the listener nothing.
"""

import asyncio
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import FastpubsubError, NotFound, Unavailable
from fastpubsub.message_ids import MessageId
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.sifting import Documents, Sieve
from fastpubsub.services.wakeups import Wakeups

CHUNK_MESSAGES = 1000
CHUNK_BYTES = 1 << 18
NO_SUBSCRIPTION = 0
"""No subscription has this key: in the lines of consumers that wait it stands for the readers of a topic."""

DELETED = "the topic was deleted"
PAUSE_SECONDS = 1.0
"""After the database could not be read."""

QUIET_SECONDS = 5.0
"""How often a listener whose filter keeps everything out learns how far the topic is."""

SIFTING_SECONDS = 0.005


class Logged(NamedTuple):
    """A message as it is in the log of its topic."""

    topic_key: int
    position: int
    created_at: datetime
    payload: bytes
    attributes: bytes | None
    ordering_key: str | None = None


Render = Callable[[Sequence[Logged]], list[bytes]]


class Part(NamedTuple):
    """The next messages, rendered, up to `position`. `missed`: trimming deleted some before they were read."""

    missed: bool
    position: int
    positions: Sequence[int]
    messages: Sequence[bytes]

    def only(self, places: Sequence[int]) -> "Part":
        chosen = [self.positions[place] for place in places], [self.messages[place] for place in places]
        return Part(self.missed, self.position, *chosen)


class Read(NamedTuple):
    """What a reader has read: rendered, and as filters see it."""

    part: Part
    documents: Documents

    def sifted(self, sieve: Sieve | None) -> Part:
        return self.part if sieve is None else self.part.only(self.documents.passing(sieve))


class Listener:
    """Has got everything up to `after`. What the reader gives it waits here, up to a size; past it the listener is on
    its own, and reads for itself until it is level with the reader again. It is woken for what its `sieve` lets pass,
    and now and then to learn how far the reader is.
    """

    __slots__ = ("_max_bytes", "_woken_at", "after", "arrived", "ended", "joined", "sieve", "size", "waiting")

    def __init__(self, after: int, max_bytes: int, sieve: Sieve | None = None) -> None:
        self.after = after
        self.sieve = sieve
        self._woken_at = time.monotonic()
        self.joined = False
        self.ended: str | None = None
        self.arrived = asyncio.Event()
        self.waiting: deque[Part] = deque()
        self.size = 0
        self._max_bytes = max_bytes

    def put(self, part: Part, size: int) -> bool:
        """Returns False when the listener cannot take it."""
        now = time.monotonic()
        if not part.messages and not part.missed and now < self._woken_at + QUIET_SECONDS:
            return True
        self._woken_at = now
        if self.size and self.size + size > self._max_bytes:
            self.joined = False
        else:
            self.waiting.append(part)
            self.size += size
        self.arrived.set()
        return self.joined

    def take(self) -> list[Part]:
        parts = list(self.waiting)
        self.waiting.clear()
        self.size = 0
        self.arrived.clear()
        return parts

    def end(self, reason: str) -> None:
        self.ended = reason
        self.joined = False
        self.arrived.set()


class _Reader:
    def __init__(self, after: int) -> None:
        self.position = after
        self.listeners: set[Listener] = set()
        self.task: asyncio.Task[None] | None = None

    async def give(self, read: Read) -> None:
        """With many filters it lets others run in between; who joins meanwhile has what is given here."""
        self.position = read.part.position
        until = time.monotonic() + SIFTING_SECONDS
        for text, listeners in self._by_filter().items():
            if text is not None and time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + SIFTING_SECONDS
            part = read.sifted(listeners[0].sieve)
            size = sum(map(len, part.messages))
            self.listeners -= {listener for listener in listeners if not listener.put(part, size)}

    def _by_filter(self) -> dict[str | None, list[Listener]]:
        groups: dict[str | None, list[Listener]] = {}
        for listener in self.listeners:
            groups.setdefault(listener.sieve and listener.sieve.text, []).append(listener)
        return groups

    def end(self, reason: str) -> None:
        for listener in self.listeners:
            listener.end(reason)
        self.listeners.clear()


class Tails:
    def __init__(
        self, database: Database, directory: Directory, wakeups: Wakeups, settings: Settings, render: Render
    ) -> None:
        self._database = database
        self._directory = directory
        self._wakeups = wakeups
        self._max_bytes = settings.stream_max_buffer_bytes
        self._render = render
        self._readers: dict[int, _Reader] = {}

    async def open(self, topic_id: str, after: MessageId | None, recent: int = 0, sieve: Sieve | None = None) -> "Tail":
        """Opens after a message, or from now on with up to `recent` earlier ones, of which it gets what passes."""

        async def start(topic_key: int) -> Tail:
            last = (await self._read(topic_key, None))[0]
            if after is None:
                begin = await self._before(topic_key, last - recent) if recent else last
                return Tail(self, topic_key, Listener(begin, self._max_bytes, sieve), missed=False)
            # Of a topic that had this name before, or from the time after a backup: what was between is not known.
            known = after.topic_key == topic_key and after.position <= last
            begin = after.position if known else last
            return Tail(self, topic_key, Listener(begin, self._max_bytes, sieve), missed=not known)

        return await self._directory.topics.use(topic_id, start)

    async def _before(self, topic_key: int, position: int) -> int:
        """The position itself, or that before the first message that was not deleted."""
        last, _, positions, *_, scanned = await self._read(topic_key, max(position, 0))
        return int(positions[0] - 1 if positions else scanned or last)

    async def read(self, topic_key: int, after: int) -> Read:
        """However long the database is away."""
        while True:
            try:
                return await self._part(topic_key, after)
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _part(self, topic_key: int, after: int) -> Read:
        _, missed, positions, created_at, payloads, attributes, keys, scanned = await self._read(topic_key, after)
        if not positions:
            return Read(Part(missed, scanned or after, [], []), Documents([]))
        columns = zip(positions, created_at, payloads, attributes, keys or [None] * len(positions), strict=True)
        messages = [Logged(topic_key, *column) for column in columns]
        return Read(Part(missed, scanned, positions, self._render(messages)), Documents(messages))

    async def _read(self, topic_key: int, after: int | None) -> Row:
        return await self._database.fetch_one("read_messages_2", topic_key, after, CHUNK_MESSAGES, CHUNK_BYTES)

    def join(self, topic_key: int, listener: Listener) -> bool:
        """Returns False when the reader is ahead of the listener, which has to catch up first."""
        reader = self._readers.get(topic_key)
        if reader is None:
            reader = self._readers[topic_key] = _Reader(listener.after)
            reader.task = asyncio.create_task(self._run(topic_key, reader))
        elif reader.position > listener.after:
            return False
        listener.joined = True
        reader.listeners.add(listener)
        return True

    def leave(self, topic_key: int, listener: Listener) -> None:
        reader = self._readers.get(topic_key)
        if reader is not None and listener in reader.listeners:
            reader.listeners.discard(listener)
            if not reader.listeners and reader.task is not None:
                del self._readers[topic_key]
                reader.task.cancel()

    async def close(self) -> None:
        tasks = {reader.task for reader in self._readers.values() if reader.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, topic_key: int, reader: _Reader) -> None:
        try:
            with self._wakeups.lines.join(SubscriptionKey(topic_key, NO_SUBSCRIPTION)) as line:
                while reader.listeners:
                    line.begin_claim()
                    read = await self.read(topic_key, reader.position)
                    if read.part.position > reader.position:
                        await reader.give(read)
                    elif self._wakeups.lines.ended or not await line.wait(sys.maxsize, None):
                        return
        except NotFound:
            reader.end(DELETED)
        except FastpubsubError as error:
            reader.end(error.detail)
        finally:
            if self._readers.get(topic_key) is reader:
                del self._readers[topic_key]


class Tail:
    """The messages of one listener. It ends by itself only when its topic is gone; `ended` then says so."""

    def __init__(self, tails: Tails, topic_key: int, listener: Listener, missed: bool) -> None:
        self.topic_key = topic_key
        self.start = listener.after
        """The position of the message before the first one that it gets."""
        self._tails = tails
        self._listener = listener
        self._missed = missed

    @property
    def ended(self) -> str | None:
        return self._listener.ended

    async def parts(self) -> AsyncGenerator[Part]:
        listener = self._listener
        if self._missed:
            yield Part(True, listener.after, [], [])
        try:
            while listener.ended is None:
                async for part in self._catch_up():
                    yield part
                while listener.waiting or listener.joined:
                    await listener.arrived.wait()
                    for part in listener.take():
                        if part.position > listener.after:
                            yield self._rest(part)
                            listener.after = part.position
        finally:
            self._tails.leave(self.topic_key, listener)

    async def _catch_up(self) -> AsyncGenerator[Part]:
        listener = self._listener
        while not self._tails.join(self.topic_key, listener):
            try:
                read = await self._tails.read(self.topic_key, listener.after)
            except NotFound:
                listener.end(DELETED)
                return
            part = read.sifted(listener.sieve)
            if part.messages or part.missed:
                yield part
            listener.after = part.position

    def _rest(self, part: Part) -> Part:
        """Returns the messages that it did not read itself while it caught up."""
        skip = bisect_right(part.positions, self._listener.after)
        return part if skip == 0 else part._replace(missed=False, messages=part.messages[skip:])
