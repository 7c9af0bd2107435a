"""Who holds messages of a subscription or waits for some: what leases say, and what the processes tell each other."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import NotFound
from fastpubsub.models import Consumer
from fastpubsub.services.directory import Directory, SubscriptionKey
from fastpubsub.services.history import every_interval
from fastpubsub.services.waiting_lines import WaitingLines

MAX_TOLD = 1000
"""Consumers of a subscription that wait at a process: those that have waited for the longest time."""


class Stream(NamedTuple):
    subscription_id: str
    consumer_id: str
    since: float


class Waiting(NamedTuple):
    """`since` by the clock of the loop."""

    consumer_id: str
    is_stream: bool
    since: float


class Consumers:
    """Writes once an interval who waits at this process, as long as somebody does."""

    def __init__(self, database: Database, directory: Directory, lines: WaitingLines) -> None:
        self._database = database
        self._directory = directory
        self._lines = lines
        self._process = secrets.randbits(63)
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._written: set[SubscriptionKey] = set()

    def open_stream(self, subscription_id: str, consumer_id: str) -> int:
        """Returns what names it to `close_stream`."""
        self._opened += 1
        self._streams[self._opened] = Stream(subscription_id, consumer_id, asyncio.get_running_loop().time())
        return self._opened

    def close_stream(self, stream: int) -> None:
        self._streams.pop(stream, None)

    async def find(self, subscription_id: str, after: str | None, limit: int) -> list[Consumer]:
        """Ordered by id. Who waits at another process may have begun or ended it an interval ago."""

        async def find(keys: SubscriptionKey) -> list[Consumer]:
            line = self._lines.find(keys)
            pulls = () if line is None else line.pulls()
            here = _oldest(pulls, (one for one in self._streams.values() if one.subscription_id == subscription_id))
            rows = await self._database.fetch_all("list_consumers", *keys, self._process, *_columns(here), after, limit)
            names = Consumer.model_fields
            return [Consumer(**dict(zip(names, row, strict=True))) for row in rows]

        return await self._directory.subscriptions.use(subscription_id, find)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await every_interval(self.write, "telling who waits")

    async def write(self) -> None:
        waiting = await self._waiting()
        gone = self._written - waiting.keys()
        self._written |= waiting.keys()
        if not self._written:
            return
        told = {**waiting, **{keys: [] for keys in gone}}
        await self._database.fetch_one(
            "record_consumers",
            self._process,
            Array("int8", [keys.topic_key for keys in told]),
            Array("int8", [keys.subscription_key for keys in told]),
            Array("int4", [len(ones) for ones in told.values()]),
            *_columns([one for ones in told.values() for one in ones]),
        )
        self._written = set(waiting)

    async def _waiting(self) -> dict[SubscriptionKey, list[Waiting]]:
        streams = defaultdict(list)
        for stream in list(self._streams.values()):
            with suppress(NotFound):
                streams[await self._directory.subscriptions.key(stream.subscription_id)].append(stream)
        pulls = {keys: pulls for keys, pulls in self._lines.pulls() if pulls}
        return {keys: _oldest(pulls.get(keys, ()), streams.get(keys, ())) for keys in pulls.keys() | streams.keys()}


def _oldest(pulls: Iterable[tuple[str, float]], streams: Iterable[Stream]) -> list[Waiting]:
    waiting = [Waiting(consumer_id, False, since) for consumer_id, since in pulls]
    waiting += (Waiting(one.consumer_id, True, one.since) for one in streams)
    waiting.sort(key=lambda one: one.since)
    return list(islice(waiting, MAX_TOLD))


def _columns(waiting: list[Waiting]) -> tuple[Array, Array, Array]:
    """Times as durations, because the clock of the database is another."""
    now = asyncio.get_running_loop().time()
    return (
        Array("text", [one.consumer_id for one in waiting]),
        Array("bool", [one.is_stream for one in waiting]),
        Array("float8", [now - one.since for one in waiting]),
    )


async def trim_consumers(database: Database) -> None:
    """Deletes what processes wrote that are gone."""
    await database.fetch_one("trim_consumers")
