"""Which process does the background work: one at a time, however many there are."""

import asyncio
import logging
import random
import secrets

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)

BESIDE_THE_POOL = 2
"""Connections of a process for readiness and for LISTEN."""

TROUBLE_PAUSE_SECONDS = 1.0


def most_connections(settings: Settings) -> int:
    """Of one process."""
    return settings.database_pool_size + settings.database_max_overflow + BESIDE_THE_POOL


class Turn:
    """Says that this process lives, and learns whether it holds the background work.

    The last process to start takes it. When the holder is gone another one takes over within four seconds. Two at once
    do no harm, they only do more.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._connections = most_connections(settings)
        self._process = secrets.randbits(63)
        self._has_looked = False
        self._held = asyncio.Event()

    @property
    def holds(self) -> bool:
        return self._held.is_set()

    async def held(self) -> None:
        """Waits until this process holds the background work."""
        await self._held.wait()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            pause = TROUBLE_PAUSE_SECONDS
            with Surviving(logger, "saying that this process lives"):
                pause = await self.look()
            # Processes that started together do not stay in step.
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - no secret

    async def look(self) -> float:
        """Returns in how many seconds to look again."""
        holds, pause = await self._database.fetch_one(
            "record_process", self._process, self._connections, not self._has_looked
        )
        self._has_looked = True
        if holds:
            self._held.set()
        else:
            self._held.clear()
        return float(pause)

    async def give_up(self) -> None:
        """Lets another process take over at once."""
        self._held.clear()
        with Surviving(logger, "letting another process take over", logging.DEBUG):
            await self._database.fetch_one("forget_process", self._process)
