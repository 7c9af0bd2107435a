"""Threads for plain functions: what several finish at once, the event loop hears of at once."""

import asyncio
import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

THREADS = "fastpubsub-worker"
"""How the names of the threads begin."""

Call: TypeAlias = Callable[[], Any]
_numbers = itertools.count()


class Threads:
    """Up to `count` of them, begun when they are needed. For one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Call] | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._is_woken = False
        self._threads = 0
        self._busy = 0

    async def run(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Returns what it returns or raises: a future cannot hold every exception, such as `StopIteration`."""
        context = contextvars.copy_context()
        result: asyncio.Future[Any] = self._loop.create_future()
        self._busy += 1
        if self._busy > self._threads and self._threads < self._count:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{THREADS}-{next(_numbers)}").start()
        self._calls.put((result, lambda: context.run(function, *arguments, **keywords)))
        return await result

    def close(self) -> None:
        """Each thread ends after what it does now, and what has not begun does not begin."""
        while not self._calls.empty():
            self._calls.get()
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            result, call = given
            try:
                returned = call()
            except BaseException as error:  # noqa: BLE001 - the threads go on
                returned = error
            self._done.append((result, returned))
            del given, result, call, returned
            if not self._is_woken:
                self._is_woken = True
                self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # it is closed, and nobody waits any more
            return

    def _deliver(self) -> None:
        self._is_woken = False  # before it looks, so that what is done from now on wakes it again
        while self._done:
            result, returned = self._done.popleft()
            self._busy -= 1
            if not result.done():
                result.set_result(returned)
