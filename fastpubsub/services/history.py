"""The history of topics and subscriptions: what the processes counted, written once an interval, and read again."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.exceptions import FastpubsubError, OutcomeUnknown
from fastpubsub.services.surviving import Surviving

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 5
MIDDLE_SECONDS = 2.5
"""Where in an interval a process writes, so that a late write is still in the same interval."""

LAST_WRITE_SECONDS = 1.0
"""A stopping process does not wait for longer to write what it has counted."""

SUBSCRIPTION_COLUMNS = ("delivered", "acked", "nacked", "rejected", "expired", "dead_lettered", "filtered")
COLUMNS = ("published", *SUBSCRIPTION_COLUMNS)


class Recorder:
    """Writes what this process has counted; the database adds up what all processes write."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = {name: getattr(counters, name) for name in COLUMNS}

    async def run(self) -> None:
        """Runs until it is cancelled."""
        await every_interval(self.write, "writing the history")

    async def write(self) -> None:
        """What was not stored is kept for the next time; what may have been stored is not counted twice."""
        taken = {name: counter.take() for name, counter in self._counters.items()}
        if not any(taken.values()):
            return
        topics = taken["published"]
        names = list(dict.fromkeys(name for column in SUBSCRIPTION_COLUMNS for name in taken[column]))
        numbers = [Array("int4", [taken[column].get(name, 0) for name in names]) for column in SUBSCRIPTION_COLUMNS]
        try:
            await self._database.fetch_one(
                "record_history",
                Array("text", list(topics)),
                Array("int4", list(topics.values())),
                Array("text", names),
                *numbers,
            )
        except OutcomeUnknown:
            raise
        except FastpubsubError:
            for name, counter in self._counters.items():
                counter.put_back(taken[name])
            raise


async def every_interval(write: Callable[[], Awaitable[None]], what: str) -> None:
    """Runs until it is cancelled; `what` it does is for the log."""
    while True:
        await asyncio.sleep(INTERVAL_SECONDS - (time.time() - MIDDLE_SECONDS) % INTERVAL_SECONDS)
        with Surviving(logger, what, logging.DEBUG):
            await write()


async def read_history(
    database: Database,
    topic_ids: Iterable[str] | None,
    subscription_ids: Iterable[str] | None,
    interval_seconds: int,
    from_: int | None,
    to: int | None,
) -> dict[str, list[int]]:
    """`times` and a list of the same length for each column; None is all topics, or subscriptions."""
    topics = None if topic_ids is None else list(topic_ids)
    subscriptions = None if subscription_ids is None else list(subscription_ids)
    rows = await database.fetch_all("list_history", topics, subscriptions, interval_seconds, from_, to)
    columns = zip(*rows, strict=True) if rows else ([] for _ in range(len(COLUMNS) + 1))
    return {name: list(column) for name, column in zip(("times", *COLUMNS), columns, strict=True)}


async def trim_history(database: Database) -> None:
    while (await database.fetch_one("trim_history"))[0]:
        pass
