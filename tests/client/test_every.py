"""Functions that are called again and again: their schedules are declared beside them."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from fastpubsub.client import AlreadyExists, AsyncClient, Depends, Message, NotFound, Router, Worker
from fastpubsub.testing import InMemoryBus

pytestmark = pytest.mark.shared_application

DAY = 86_400
PATIENCE = 60


@pytest.fixture
async def memory_client() -> AsyncIterator[AsyncClient]:
    async with InMemoryBus().async_client() as client:
        yield client


@pytest.fixture(params=["bus", "memory_client"])
def client(request: pytest.FixtureRequest) -> AsyncClient:
    found: AsyncClient = request.getfixturevalue(request.param)
    return found


def worker_of(when: str | int, **settings: Any) -> Worker:
    worker = Worker()

    @worker.every(when, **settings)
    async def report() -> None:
        pass

    return worker


async def test_topic_schedule_and_subscription_are_declared(client: AsyncClient) -> None:
    worker = worker_of("0 9 * * *", tz="Europe/Berlin", max_delivery_attempts=3)
    for _ in range(2):
        await worker.declare(client)
    schedule = await client.get_schedule("report", "report")
    assert (schedule.cron, schedule.time_zone, schedule.payload) == ("0 9 * * *", "Europe/Berlin", {})
    subscription = await client.get_subscription("report")
    assert (subscription.topic_id, subscription.max_delivery_attempts) == ("report", 3)


async def test_what_differs_is_brought_in_line(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastpubsub.client")
    await worker_of("0 9 * * *").declare(client)
    before = await client.get_schedule("report", "report")
    await worker_of("0 9 * * *").declare(client)
    assert await client.get_schedule("report", "report") == before
    assert not [text for text in caplog.messages if "changes" in text]
    await worker_of("0 9 * * *", tz="Asia/Tokyo", payload={"n": 1}, catch_up="all").declare(client)
    found = await client.get_schedule("report", "report")
    assert (found.time_zone, found.payload, found.catch_up) == ("Asia/Tokyo", {"n": 1}, "all")
    assert 'schedule report of report changes: payload from {} to {"n": 1}' in caplog.text
    await worker_of(60).declare(client)
    found = await client.get_schedule("report", "report")
    assert (found.cron, found.time_zone, found.interval_seconds) == (None, None, 60)
    await client.pause_schedule("report", "report")
    await worker_of("* * * * *").declare(client)
    paused = await client.get_schedule("report", "report")
    assert (paused.is_paused, paused.cron, paused.interval_seconds) == (True, "* * * * *", None)


async def test_many_declare_at_once(bus: AsyncClient) -> None:
    await asyncio.gather(*(worker_of("0 9 * * *").declare(bus) for _ in range(8)))
    await asyncio.gather(*(worker_of("0 8 * * *").declare(bus) for _ in range(8)))
    assert (await bus.get_schedule("report", "report")).cron == "0 8 * * *"


async def test_it_is_called_once_each_time_in_one_of_several_workers(bus: AsyncClient) -> None:
    called: list[str] = []
    enough = asyncio.Event()

    def worker() -> Worker:
        made = Worker(grace_seconds=1)

        @made.every(1, name="tick")
        async def tick(message: Message) -> None:
            assert message.attributes is not None
            called.append(message.attributes["scheduled_at"])
            if len(called) >= 3:
                enough.set()

        return made

    workers = [worker() for _ in range(3)]
    serving = [asyncio.create_task(one.serve(bus)) for one in workers]
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    for one in workers:
        one.stop()
    await asyncio.gather(*serving)
    assert sorted(called) == sorted(set(called))


# in memory, where time is passed by hand


async def test_in_memory_it_is_called_when_time_has_passed() -> None:
    memory, worker, router = InMemoryBus(), Worker(), Router()
    seen: list[tuple[object, ...]] = []

    def session() -> str:
        return "session"

    @worker.every("0 9 * * *", tz="Europe/Berlin", payload={"n": 1})
    def report(payload: dict[str, int], message: Message) -> None:
        seen.append(("report", payload["n"], message.attributes is not None))

    @router.every(DAY // 2)
    async def sweep(opened: Annotated[str, Depends(session)]) -> None:
        seen.append(("sweep", opened))

    worker.include_router(router)
    await memory.drain(worker)
    assert seen == []
    for _ in range(2):
        memory.advance(DAY)
        await memory.drain(worker)
    assert Counter(seen) == {("report", 1, True): 2, ("sweep", "session"): 4}


async def test_what_fails_comes_again() -> None:
    memory, worker = InMemoryBus(), Worker()
    called: list[int] = []

    @worker.every(DAY, max_delivery_attempts=2, retry_on=OSError)
    async def report() -> None:
        called.append(len(called))
        raise OSError("no")

    await memory.drain(worker)
    memory.advance(DAY)
    await memory.drain(worker)
    memory.advance(60)
    await memory.drain(worker)
    assert called == [0, 1]
    with memory.client() as bus:
        assert bus.metrics("report").dlq == 1


# what is refused


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="a number of seconds has no time zone"):
        Worker().every(60, tz="UTC")
    with pytest.raises(TypeError, match="takes a payload, a message, or both"):
        Worker().every(60)(lambda a, b: None)
    with pytest.raises(TypeError, match="takes a payload, a message, or both"):
        Worker().subscriber("billing")(lambda: None)


async def test_a_worker_that_declares_nothing_needs_it_to_be_there(bus: AsyncClient) -> None:
    worker = Worker(declare=False)

    @worker.every(60)
    async def report() -> None:
        pass

    with pytest.raises(NotFound):
        await worker.serve(bus)


async def test_a_subscription_of_another_topic_is_refused(client: AsyncClient) -> None:
    await client.create_topic("others")
    await client.create_subscription("report", "others")
    with pytest.raises(AlreadyExists, match='topic_id is "others", not "report"'):
        await worker_of(60).declare(client)
