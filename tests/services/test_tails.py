"""Following a topic: one reader whatever the number of listeners, and nobody misses anything."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.payloads import Batch
from fastpubsub.services.directory import Directory
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.tails import Logged, Tail, Tails
from fastpubsub.services.wakeups import Wakeups
from tests.api.calls import PATIENCE
from tests.conftest import MakeSettings

MAX_BUFFER = 1024


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(stream_max_buffer_bytes=MAX_BUFFER, wake_poll_seconds=3600)


class Here:
    """A process, without its background."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.wakeups = Wakeups(database, settings)
        directory = Directory(database)
        self.publishing = Publishing(database, directory, settings, Counters(CollectorRegistry(), 10), self.wakeups)
        self.tails = Tails(database, directory, self.wakeups, settings, rendered)
        self.reads = 0
        fetch = database.fetch_one

        async def counting(procedure: str, *arguments: object) -> Any:
            self.reads += procedure == "read_messages"
            return await fetch(procedure, *arguments)

        database.fetch_one = counting  # type: ignore[method-assign, assignment]

    async def publish(self, *texts: bytes) -> None:
        await self.publishing.publish("t", Batch(list(texts), None, sum(map(len, texts))))


def rendered(messages: Sequence[Logged]) -> list[bytes]:
    return [message.payload for message in messages]


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Here]:
    database = Database(settings)
    await database.fetch_one("create_topic", "t")
    opened = Here(database, settings)
    yield opened
    await opened.tails.close()
    await opened.publishing.close()
    await database.close()


async def collect(tail: Tail, count: int, into: list[bytes]) -> None:
    async with asyncio.timeout(PATIENCE), aclosing(tail.parts()) as parts:
        async for part in parts:
            into.extend(part.messages)
            if len(into) >= count:
                return


async def test_one_reader_for_many_listeners(here: Here) -> None:
    got: list[list[bytes]] = [[] for _ in range(100)]
    tasks = [asyncio.create_task(collect(await here.tails.open("t", None), 20, one)) for one in got]
    await asyncio.sleep(0)
    here.reads = 0
    texts = [b'{"n":%d}' % n for n in range(20)]
    for text in texts:
        await here.publish(text)
    await asyncio.gather(*tasks)
    assert got == [texts] * 100
    assert here.reads <= 50, "about one for each publish, and never one for each listener"


async def test_the_reader_ends_with_its_last_listener(here: Here) -> None:
    for _ in range(3):
        tail = await here.tails.open("t", None)
        task = asyncio.create_task(collect(tail, 1, []))
        await asyncio.sleep(0)
        await here.publish(b"{}")
        await task
    here.reads = 0
    for _ in range(5):
        await here.publish(b"{}")
    assert here.reads == 0


async def test_who_is_slow_reads_for_itself_and_misses_nothing(here: Here) -> None:
    slow = await here.tails.open("t", None)
    quick_got: list[bytes] = []
    texts = [b'{"n":%d,"text":"%b"}' % (n, b"x" * 100) for n in range(100)]
    quick = asyncio.create_task(collect(await here.tails.open("t", None), 100, quick_got))
    async with aclosing(slow.parts()) as parts:
        await here.publish(texts[0])
        slow_got = list((await anext(parts)).messages)
        for text in texts[1:]:
            await here.publish(text)
        await quick
        assert slow._listener.size <= MAX_BUFFER or len(slow._listener.waiting) == 1, "what waits for it is bounded"
        while len(slow_got) < 100:
            slow_got += (await anext(parts)).messages
    assert slow_got == quick_got == texts
