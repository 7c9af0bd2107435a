"""Following a topic: one reader whatever the number of listeners, and nobody misses anything."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastpubsub import filters
from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.message_ids import MessageId
from fastpubsub.payloads import Batch, Expiry
from fastpubsub.services.directory import Directory
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.sifting import Documents, Sieve
from fastpubsub.services.tails import Logged, Tail, Tails
from fastpubsub.services.wakeups import Wakeups
from tests.conftest import MakeSettings

MAX_BUFFER = 1024
NOW = datetime(2026, 1, 31, tzinfo=UTC)
PATIENCE = 60.0


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
            self.reads += procedure == "read_messages_2"
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


async def test_what_has_expired_is_passed_by(here: Here) -> None:
    """Also where a reader that was read to comes to nothing else."""
    expired = Batch([b"{}"] * 1000, None, 2000, expiries=[Expiry(NOW, None)] * 1000)
    await here.publish(b'{"n":1}')
    for _ in range(2):
        await here.publishing.publish("t", expired)
    await here.publish(b'{"n":2}')
    late: list[bytes] = []
    await collect(await here.tails.open("t", None, recent=2002), 2, late)
    present: list[bytes] = []
    task = asyncio.create_task(collect(await here.tails.open("t", None), 1, present))
    await asyncio.sleep(0)
    for _ in range(2):
        await here.publishing.publish("t", expired)
    await here.publish(b'{"n":3}')
    await task
    assert (late, present) == ([b'{"n":1}', b'{"n":2}'], [b'{"n":3}'])


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


def n(value: int) -> Sieve:
    return Sieve.of(f'{{"n": [{value}]}}')


async def test_each_listener_gets_what_passes_its_filter(here: Here) -> None:
    """Whether it is given to it, or read by itself."""
    texts = [b'{"n":%d,"text":"%b"}' % (number % 3, b"x" * 100) for number in range(60)]
    tail = await here.tails.open("t", None)
    await here.publish(*texts[:30])
    begin = MessageId(tail.topic_key, 0, NOW)
    got: dict[int | None, list[bytes]] = {0: [], 1: [], 2: [], None: []}
    tasks = []
    for value, into in got.items():
        sieve = None if value is None else n(value)
        tasks.append(collect(await here.tails.open("t", begin, sieve=sieve), 60 if value is None else 20, into))
    gathered = asyncio.gather(*tasks)
    for text in texts[30:]:
        await here.publish(text)
    await gathered
    assert got == {None: texts} | {value: texts[value::3] for value in range(3)}


async def test_what_a_filter_keeps_out_wakes_nobody(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for now and then, to say how far the topic is."""
    monkeypatch.setattr("fastpubsub.services.tails.QUIET_SECONDS", 3600)
    tail = await here.tails.open("t", None, sieve=n(1))
    async with aclosing(tail.parts()) as parts:
        first = asyncio.create_task(anext(parts))
        other: list[bytes] = []
        others = asyncio.create_task(collect(await here.tails.open("t", None), 4, other))
        await asyncio.sleep(0)
        for _ in range(3):
            await here.publish(b'{"n":0}')
        await here.publish(b'{"n":1}')
        await others
        assert list((await first).messages) == [b'{"n":1}']
        monkeypatch.setattr("fastpubsub.services.tails.QUIET_SECONDS", 0)
        await here.publish(b'{"n":0}')
        quiet = await anext(parts)
        assert (list(quiet.messages), quiet.position) == ([], 5)


async def test_a_message_is_parsed_once_for_all_filters(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    read = filters.read
    parsed: list[bytes | str] = []

    def reading(text: bytes | str) -> Any:
        parsed.append(text)
        return read(text)

    monkeypatch.setattr(filters, "read", reading)
    got: list[list[bytes]] = [[] for _ in range(50)]
    tails = [await here.tails.open("t", None, sieve=n(number % 2)) for number in range(50)]
    of_attributes = await here.tails.open("t", None, sieve=Sieve.of('{"$attributes": {"a": ["1"]}}'))
    parsed.clear()
    tasks = [asyncio.create_task(collect(tail, 1, into)) for tail, into in zip(tails, got, strict=True)]
    ignored = asyncio.create_task(collect(of_attributes, 1, []))
    await asyncio.sleep(0)
    await here.publish(b'{"n":0}', b'{"n":1}')
    await asyncio.gather(*tasks)
    ignored.cancel()
    assert sorted(one for one in parsed if one != b"null") == [b"0", b"1"]


def test_what_python_cannot_read_passes_no_filter() -> None:
    deep = b'{"n":1,"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    messages = [Logged(1, place, NOW, payload, None) for place, payload in enumerate([deep, b'{"n":1}', b"{"])]
    assert Documents(messages).passing(n(1)) == [1]
