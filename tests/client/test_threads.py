"""The threads of plain functions."""

import asyncio
import threading

import pytest

from fastpubsub.client.threads import THREADS, Threads


async def test_everything_is_heard_of() -> None:
    """Many threads that end at the same moments: none is forgotten."""
    threads = Threads(20)
    async with asyncio.timeout(60):
        for _ in range(50):
            assert await asyncio.gather(*(threads.run(pow, n, 2) for n in range(40))) == [n * n for n in range(40)]
    threads.close()


async def test_as_many_as_are_needed() -> None:
    threads = Threads(3)
    barrier = threading.Barrier(3)
    await asyncio.gather(*(threads.run(barrier.wait) for _ in range(3)))
    mine = [one for one in threading.enumerate() if one.name.startswith(THREADS)]
    assert len(mine) == 3
    await threads.run(int)
    threads.close()
    for thread in mine:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(3), KeyboardInterrupt(), ValueError("x")])
async def test_what_is_raised_is_returned(error: BaseException) -> None:
    def fail() -> None:
        raise error

    threads = Threads(1)
    assert await threads.run(fail) is error
    assert await threads.run(int) == 0
    threads.close()


async def test_what_has_not_begun_does_not_begin() -> None:
    threads = Threads(1)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def first() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        seen.append("first")

    running = asyncio.create_task(threads.run(first))
    await begun.wait()
    waiting = asyncio.create_task(threads.run(seen.append, "second"))
    await asyncio.sleep(0)
    threads.close()
    go_on.set()
    await running
    waiting.cancel()
    await asyncio.wait([waiting])
    assert seen == ["first"]
