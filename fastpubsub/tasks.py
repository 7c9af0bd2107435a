"""Tasks that run on by themselves: the event loop keeps no task alive that nobody else holds."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Holds tasks until they end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.hold(asyncio.create_task(coroutine))

    def hold(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Waits until none is left, also of those that start meanwhile."""
        while self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()
