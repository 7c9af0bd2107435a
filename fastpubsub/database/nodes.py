"""Which nodes have topics, and which of them are away, as far as a process knows."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from fastpubsub.database.connections import Connector, Row, cut, cut_after
from fastpubsub.database.spreading import CLOCKS, TOPIC_IDS, TOPICS_BY_NODE
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

ALONE_SECONDS = 30.0
"""For which a process that found one node believes it."""

AGAIN_SECONDS = 1.0
"""After which a node that is away is asked again; twice as long each time, up to the most."""

AGAIN_MOST_SECONDS = 8.0

SLOW_SECONDS = 3.0
"""After which a call may wait for a node that does not answer. It waits less long for locks, unless that is set."""

ANSWER_SECONDS = 10.0
"""In which the database says which nodes are away."""

MOST_MISSING = 100


class Known(NamedTuple):
    """`topic_keys`: of those on nodes that answer, where one does not; None for all."""

    rows: list[Row]
    topic_keys: list[int] | None


@dataclass(slots=True)
class _Absence:
    again_at: float
    pause: float
    is_silent: bool = False
    """Calls that are sent to it wait for nothing, instead of being refused."""


class Nodes:
    """Asks a node that is away again after a pause, beside the calls, so that none of them waits for it.

    `fetch` runs a statement on one of the connections that calls share; the `connector` makes one beside them.
    """

    def __init__(self, fetch: Callable[[bytes, Sequence[object]], Awaitable[list[Row]]], connector: Connector) -> None:
        self._fetch = fetch
        self._connector = connector
        self._alone_until = 0.0
        self._away: dict[str, _Absence] = {}
        self._looking = asyncio.Lock()
        self._tasks = Tasks()
        self._calls: dict[psycopg.AsyncConnection[Any], int] = {}
        self._suspected: set[int] = set()
        self._is_finding_out = False
        self.are_several = False
        """As far as this process knows."""

        self.silent: frozenset[int] = frozenset()
        """Keys of topics whose node lets calls wait, so that none are sent."""

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
        parts = await self._fetch(query, ())
        self.are_several = bool(parts)
        return parts

    async def known_topics(self) -> list[int] | None:
        """Keys of the topics on nodes that are there; None for all."""
        if not self._away:
            return None
        return [key for _, topic_keys in self.there(await self.with_topics()) for key in topic_keys]

    def there(self, parts: list[Row]) -> list[Row]:
        """Those of `with_topics` that are not away."""
        self._look_again()
        return [part for part in parts if part[0] not in self._away]

    def _look_again(self) -> None:
        now = time.monotonic()
        if not self._looking.locked() and any(one.again_at <= now for one in self._away.values()):
            self._tasks.start(self.look())

    async def look(self) -> None:
        """Finds out who is away. All are asked at once; whoever comes meanwhile waits for the same answers."""
        if self._looking.locked():
            async with self._looking:
                return
        async with self._looking:
            try:
                self._note_all(await self._fetch(CLOCKS.encode(), ()))
                if self.silent:
                    self._silence(await self.with_topics())
            except FastpubsubError as error:
                logger.warning("nobody could say which nodes are away: %s", error.detail)

    @contextlib.contextmanager
    def watched(self, connection: psycopg.AsyncConnection[Any], topic_key: int) -> Iterator[None]:
        """A call for the topic: when it is slow, its node may be silent, and if it is, the call is cut."""
        self._calls[connection] = topic_key
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self.suspect, topic_key)
        try:
            yield
        finally:
            slow.cancel()
            del self._calls[connection]
            self._suspected.discard(topic_key)

    def suspect(self, topic_key: int | None) -> None:
        """A call for the topic has no answer: a task finds out whether its node is silent."""
        if topic_key is None or topic_key in self.silent or time.monotonic() < self._alone_until:
            return
        self._suspected.add(topic_key)
        if not self._is_finding_out:
            self._is_finding_out = True
            self._tasks.start(self._find_out())

    def is_silent(self, topic_key: int | None) -> bool:
        """Whether calls for the topic would wait for nothing. Its node is asked again after its pause."""
        self._look_again()
        return topic_key in self.silent

    async def _find_out(self) -> None:
        """On a connection of its own: all that calls share may wait for the node."""
        is_possible, by_node = TOPICS_BY_NODE
        try:
            async with await self._connector.connect() as connection:
                with cut_after(ANSWER_SECONDS, connection):
                    if not await _is_true(connection, is_possible):
                        self._alone_until = time.monotonic() + ALONE_SECONDS
                        return
                    clocks = await (await connection.execute(CLOCKS.encode())).fetchall()
                    parts = await (await connection.execute(by_node)).fetchall()
            self.are_several = bool(parts)
            self._note_all(clocks)
            self._silence(parts)
        except (psycopg.Error, OSError) as error:
            # Where there is one node only, the calls themselves say that it is away.
            level = logging.WARNING if self.are_several else logging.DEBUG
            logger.log(level, "nobody could say which node gave no answer: %s", type(error).__name__)
        finally:
            self._suspected.clear()
            self._is_finding_out = False

    def _silence(self, parts: list[Row]) -> None:
        """Of `with_topics`: nodes that are away and let a suspected call wait. Calls that wait for them are cut."""
        silent: set[int] = set()
        for address, topic_keys in parts:
            absence = self._away.get(address)
            if absence is None:
                continue
            if not absence.is_silent and not self._suspected.isdisjoint(topic_keys):
                absence.is_silent = True
                logger.warning("the node %s lets calls wait: those for its topics are refused", address)
            if absence.is_silent:
                silent.update(topic_keys)
        self.silent = frozenset(silent)
        for connection, topic_key in self._calls.items():
            if topic_key in silent:
                cut(connection)

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

    def _note_all(self, clocks: list[Row]) -> None:
        for address, its_time in clocks:
            self._note(address, is_there=its_time is not None)
        for address in self._away.keys() - {address for address, _ in clocks}:
            del self._away[address]
            logger.warning("the node %s was replaced or removed", address)

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


async def _is_true(connection: psycopg.AsyncConnection[Any], query: bytes) -> bool:
    row = await (await connection.execute(query)).fetchone()
    return row is not None and bool(row[0])
