"""Which nodes have topics, and which of them are away, as far as a process knows."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastpubsub.database.connections import Row
from fastpubsub.database.spreading import CLOCKS, TOPIC_IDS, TOPICS_BY_NODE
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

ALONE_SECONDS = 30.0
"""For which a process that found one node believes it."""

AGAIN_SECONDS = 1.0
"""After which a node that is away is asked again; twice as long each time, up to the most."""

AGAIN_MOST_SECONDS = 8.0
MOST_MISSING = 100


class Known(NamedTuple):
    """`topic_keys`: of those on nodes that answer, where one does not; None for all."""

    rows: list[Row]
    topic_keys: list[int] | None


@dataclass(slots=True)
class _Absence:
    again_at: float
    pause: float


class Nodes:
    """Asks a node that is away again after a pause, beside the calls, so that none of them waits for it.

    `fetch` runs a statement.
    """

    def __init__(self, fetch: Callable[[bytes, Sequence[object]], Awaitable[list[Row]]]) -> None:
        self._fetch = fetch
        self._alone_until = 0.0
        self._away: dict[str, _Absence] = {}
        self._looking = asyncio.Lock()
        self._tasks = Tasks()

    async def close(self) -> None:
        await self._tasks.finish()

    async def with_topics(self, *, ask_again: bool = False) -> list[Row]:
        """The address of each with its topic keys; nothing where there is one node.

        Of that, this process asks again after a while, or when it is to `ask_again`: topics may be spread.
        """
        if not ask_again and time.monotonic() < self._alone_until:
            return []
        is_possible, query = TOPICS_BY_NODE
        if not (await self._fetch(is_possible, ()))[0][0]:
            self._alone_until = time.monotonic() + ALONE_SECONDS
            return []
        return await self._fetch(query, ())

    async def known_topics(self) -> list[int] | None:
        """Keys of the topics on nodes that are there; None for all."""
        if not self._away:
            return None
        return [key for _, topic_keys in self.there(await self.with_topics()) for key in topic_keys]

    def there(self, parts: list[Row]) -> list[Row]:
        """Those of `with_topics` that are not away."""
        now = time.monotonic()
        if not self._looking.locked() and any(one.again_at <= now for one in self._away.values()):
            self._tasks.start(self.look())
        return [part for part in parts if part[0] not in self._away]

    async def look(self) -> None:
        """Finds out who is away. All are asked at once; whoever comes meanwhile waits for the same answers."""
        if self._looking.locked():
            async with self._looking:
                return
        async with self._looking:
            try:
                rows = await self._fetch(CLOCKS.encode(), ())
            except FastpubsubError as error:
                logger.warning("nobody could say which nodes are away: %s", error.detail)
                return
            for address, its_time in rows:
                self._note(address, is_there=its_time is not None)
            for address in self._away.keys() - {address for address, _ in rows}:
                del self._away[address]
                logger.warning("the node %s was replaced or removed", address)

    async def count_missing(self) -> int:
        """Topics on nodes that are away."""
        if not self._away:
            return 0
        return sum(len(topic_keys) for address, topic_keys in await self.with_topics() if address in self._away)

    async def missing(
        self, topic_keys: Iterable[int] | None, topic_ids: list[str] | None, subscription_ids: list[str] | None
    ) -> list[str]:
        """Ids of up to 100 topics beside `topic_keys`: of those with these ids, or with one of these subscriptions.

        None of `topic_keys` is nothing, None of the others all.
        """
        if topic_keys is None:
            return []
        arguments = (list(topic_keys), topic_ids, topic_ids, subscription_ids, subscription_ids, MOST_MISSING)
        rows = await self._fetch(TOPIC_IDS, arguments)
        return [topic_id for (topic_id,) in rows]

    def _note(self, address: str, *, is_there: bool) -> None:
        now = time.monotonic()
        absence = self._away.get(address)
        if is_there:
            if self._away.pop(address, None) is not None:
                logger.warning("the node %s is there again", address)
        elif absence is None:
            self._away[address] = _Absence(now + AGAIN_SECONDS, AGAIN_SECONDS)
            logger.warning("the node %s is away: lists and background jobs leave out its topics", address)
        elif absence.again_at <= now:
            absence.pause = min(2 * absence.pause, AGAIN_MOST_SECONDS)
            absence.again_at = now + absence.pause
