"""WaitingLines: who is woken by what, and that no signal is lost."""

import asyncio
import sys

import pytest

from fastpubsub.exceptions import Overloaded
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.waiting_lines import WaitingLine, WaitingLines

KEYS = SubscriptionKey(1, 2)
FOREVER = None


@pytest.fixture
def line() -> WaitingLine:
    return WaitingLine(KEYS)


async def waiting(line: WaitingLine, *limits: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(line.wait(limit, FOREVER)) for limit in limits]
    await asyncio.sleep(0)
    return tasks


async def woken(tasks: list[asyncio.Task[bool]]) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def end(*tasks: asyncio.Task[bool]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_as_many_as_the_messages_need_in_their_order(line: WaitingLine) -> None:
    tasks = await waiting(line, 10, 10, 10, 1, 1)
    line.wake(1)
    assert await woken(tasks) == [True, False, False, False, False]
    line.wake(11)
    assert await woken(tasks) == [True, True, True, False, False]
    line.wake(sys.maxsize)
    assert await woken(tasks) == [True] * 5


async def test_a_signal_while_nobody_waits_is_remembered_until_the_next_claim(line: WaitingLine) -> None:
    line.wake(1)
    assert await line.wait(1, FOREVER)
    assert await line.wait(1, FOREVER), "as long as nobody has claimed"
    line.begin_claim()
    (task,) = await waiting(line, 1)
    assert await woken([task]) == [False]
    await end(task)


async def test_messages_beyond_those_who_wait_are_for_who_is_just_claiming(line: WaitingLine) -> None:
    (task,) = await waiting(line, 10)
    line.wake(10)
    assert not line.missed
    assert await task
    (task,) = await waiting(line, 10)
    line.wake(11)
    assert await line.wait(1, FOREVER)
    assert await task


async def test_who_leaves_after_being_woken_passes_it_on(line: WaitingLine) -> None:
    first, second, third = tasks = await waiting(line, 5, 5, 5)
    line.wake(1)
    await end(first)
    assert await woken(tasks) == [True, True, False]
    assert await second
    await end(third)
    assert not line.is_waiting


async def test_who_leaves_before_is_forgotten(line: WaitingLine) -> None:
    first, second = await waiting(line, 5, 5)
    await end(first)
    line.wake(1)
    assert await second
    assert not line.missed


async def test_the_time_is_over(line: WaitingLine) -> None:
    assert not await line.wait(1, asyncio.get_running_loop().time())
    assert not line.is_waiting


def nothing(_keys: SubscriptionKey) -> None:
    pass


async def test_lines_of_a_topic() -> None:
    lines = WaitingLines(10, nothing)
    other = SubscriptionKey(2, 3)
    with lines.join(KEYS) as line, lines.join(other) as foreign:
        (task,) = await waiting(line, 1)
        (foreign_task,) = await waiting(foreign, 1)
        lines.wake_topic(1, 1)
        lines.wake_topic(3, 1)
        assert await task
        assert await woken([foreign_task]) == [False]
        lines.end()
        assert not await foreign_task


async def test_how_many_may_wait() -> None:
    lines = WaitingLines(2, nothing)
    with lines.join(KEYS):
        with lines.join(KEYS), pytest.raises(Overloaded), lines.join(KEYS):
            pass
        with lines.join(KEYS):
            pass


async def test_a_line_is_kept_for_a_while_after_its_last_member() -> None:
    seen: list[SubscriptionKey] = []
    lines = WaitingLines(2, seen.append)
    with lines.join(KEYS):
        assert lines.in_use() == [KEYS]
    assert lines.in_use() == []
    with lines.join(KEYS):
        assert lines.in_use() == [KEYS]
    assert seen == [KEYS], "it was known all the time"
    assert lines.in_use() == []
    assert lines.find(KEYS) is not None
    assert lines.in_use() == []
    assert lines.find(KEYS) is None
    lines.wake_topic(1, 1)
    with lines.join(KEYS):
        assert seen == [KEYS, KEYS]
