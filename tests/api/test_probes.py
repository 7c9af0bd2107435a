import asyncio

import pytest

from fastpubsub.api.probes import Cached


class Source:
    """Gives 1, 2, 3, …, each when it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()

    async def look_up(self) -> int:
        self.calls += 1
        await self.go.wait()
        return self.calls


async def test_all_who_ask_at_once_share_a_look_up() -> None:
    source = Source()
    cached = Cached(source.look_up, 0, seconds=60, deadline=60)
    asking = [asyncio.create_task(cached.get()) for _ in range(100)]
    await asyncio.sleep(0)
    source.go.set()
    assert set(await asyncio.gather(*asking)) == {1}
    assert (await cached.get(), source.calls) == (1, 1)


async def test_an_old_value_is_looked_up_again() -> None:
    source = Source()
    source.go.set()
    cached = Cached(source.look_up, 0, seconds=0, deadline=60)
    assert [await cached.get() for _ in range(3)] == [1, 2, 3]


async def test_the_deadline_counts_from_the_start_of_the_look_up() -> None:
    source = Source()
    cached = Cached(source.look_up, 0, seconds=60, deadline=0.5)
    assert await cached.get() == 0
    again = asyncio.create_task(cached.get())
    for _ in range(10):
        await asyncio.sleep(0)
    assert again.done(), "it does not wait again"
    assert await again == 0
    source.go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await cached.get(), source.calls) == (1, 1)
    await cached.close()


async def test_who_goes_away_does_not_end_the_look_up() -> None:
    source = Source()
    cached = Cached(source.look_up, 0, seconds=60, deadline=60)
    leaving, staying = asyncio.create_task(cached.get()), asyncio.create_task(cached.get())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    source.go.set()
    assert await staying == 1


async def test_closing_ends_a_look_up_that_hangs() -> None:
    source = Source()
    cached = Cached(source.look_up, 0, seconds=60, deadline=0)
    assert await cached.get() == 0
    await cached.close()
    assert source.calls == 1
