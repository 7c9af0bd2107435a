"""Moves what applications published with `fastpubsub.publish` from the outbox into the log, soon after their commit.

What does not match the schema of its topic is kept apart, and what they settled is counted.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import Unavailable
from fastpubsub.services.directory import SubscriptionKey
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.topic_schemas import Known, TopicSchemas, misfits
from fastpubsub.services.turn import Turn

logger = logging.getLogger(__name__)

JOB = "relay_messages"
PROCEDURE = "relay_messages_2"
SETTLED = 0
"""The topic of rows in which transactions of applications say what they have settled."""

_COLUMNS = ("json", "jsonb", "text", "timestamptz", "int8", "int4", "timestamptz")
"""What `copy_outbox` returns of a row, and `publish_outbox` takes."""

_CHUNK_ROWS = 1000
_CHUNK_BYTES = 4 << 20
_TROUBLE_PAUSE_SECONDS = 1.0
_RESCAN_SECONDS = 60.0
_RESCAN_AFTER_TROUBLE_SECONDS = 5.0

OnRelayed = Callable[[int, int], None]
"""Called with the key of a topic and how many messages it got, after their commit: wakes the waiting consumers."""

OnSettled = Callable[[SubscriptionKey], None]
"""Called when a transaction of an application has settled messages of a subscription."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The rows after one of the outbox that a snapshot did not show as committed (None: all rows)."""

    seen: str | None
    transaction: int = 0
    ordinal: int = 0


@dataclass(slots=True)
class _Rows:
    """The rows of one topic."""

    transactions: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)

    def keys(self, count: int | None = None) -> tuple[Array, Array]:
        """Of so many from the front, or all."""
        return Array("int8", self.transactions[:count]), Array("int8", self.ordinals[:count])


class _Moved(NamedTuple):
    """What became of so many rows of a topic; `moved` is None when another process is moving rows."""

    rows: int
    topic_id: str
    moved: int | None
    dropped: int
    refused: int


class Relay:
    """The process whose turn it is looks often, the others do not look.

    The turn matters only for the load: rows are moved in one transaction that deletes and appends them, whoever does
    it. All that was committed when a stretch was begun is in that stretch, so the next one begins where its snapshot
    ends; a transaction that was running then belongs to a later one, however late it commits.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        counters: Counters,
        turn: Turn,
        on_relayed: OnRelayed = lambda _topic_key, _count: None,
        on_settled: OnSettled = lambda _keys: None,
    ) -> None:
        self._database = database
        self._interval = settings.outbox_poll_interval_seconds
        self._counters = counters
        self._turn = turn
        self._on_relayed = on_relayed
        self._on_settled = on_settled
        self._schemas = TopicSchemas(database)
        self._seen: str | None = None
        self._left: deque[_Stretch] = deque()
        self._stuck: set[int] = set()
        self._rescan_at = 0.0

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            if not self._turn.holds:
                await self._turn.held()
                self._rescan_at = 0.0
            pause = None
            with Surviving(logger, "the relay of the outbox"):
                pause = await self.step()
            await asyncio.sleep(self._trouble() if pause is None else pause)

    async def step(self) -> float:
        """Moves what is new, and a part of what is left of more; answers the seconds until the next step."""
        if time.monotonic() >= self._rescan_at:
            await self._start_over()
        found = await self._relay(_Stretch(self._seen), fresh=True)
        if self._left:
            found = await self._relay(self._left.popleft()) or found
        return 0.0 if self._left and found else self._interval

    async def _start_over(self) -> None:
        """Starts from the first row, to find rows that an error, a restart or a restored dump left behind."""
        _, self._seen, *_ = await self._list(_Stretch(None), limit=0)
        self._stuck.clear()
        self._left = deque([_Stretch(None)])
        self._rescan_at = time.monotonic() + _RESCAN_SECONDS

    def _trouble(self) -> float:
        self._rescan_at = min(self._rescan_at, time.monotonic() + _RESCAN_AFTER_TROUBLE_SECONDS)
        return _TROUBLE_PAUSE_SECONDS

    async def _relay(self, stretch: _Stretch, *, fresh: bool = False) -> bool:
        """Returns whether this process moved anything. Rows that do not fit come after the rest of the others."""
        _, seen, topics, transactions, ordinals, more = await self._list(stretch)
        if fresh:
            self._seen = seen
        if not topics:
            return False
        whole = True
        for topic_key, rows in _by_topic(topics, transactions, ordinals).items():
            moved = await self._move(topic_key, rows)
            if moved is None:
                self._left.append(stretch)
                return False
            whole = whole and moved
        if not whole:
            self._left.append(stretch)
        elif more:
            self._left.append(_Stretch(stretch.seen, transactions[-1], ordinals[-1]))
        return True

    async def _list(self, stretch: _Stretch, limit: int = _CHUNK_ROWS) -> Row:
        return await self._database.fetch_one(
            "list_outbox", stretch.seen, stretch.transaction, stretch.ordinal, limit, _CHUNK_BYTES
        )

    async def _move(self, topic_key: int, rows: _Rows) -> bool | None:
        """Whether it moved all of them, None when another process is moving.

        A failing topic is skipped until the next full pass.
        """
        if topic_key in self._stuck:
            return True
        try:
            if topic_key == SETTLED:
                return await self._count_settled(rows)
            moved = await self._schemas.judge(topic_key, partial(self._append, topic_key, rows))
        except Exception as error:  # noqa: BLE001 - one topic must not stop the others
            self._give_up(topic_key, error)
            return True
        if moved.moved is None:
            return None
        self._count(topic_key, moved)
        return moved.rows == len(rows.ordinals)

    async def _append(self, topic_key: int, rows: _Rows, known: Known | None) -> _Moved:
        """Without a schema all of them, otherwise as many as can be checked while others wait."""
        if await self._database.is_spread():
            return await self._append_apart(topic_key, rows, known)
        if known is None:
            return _Moved(len(rows.ordinals), *await self._database.fetch_one(PROCEDURE, topic_key, *rows.keys()))
        (payloads,) = await self._database.fetch_one("read_outbox", topic_key, *rows.keys())
        found = await misfits(known.schema, payloads)
        reasons = [None if misfit is None else misfit.detail for misfit in found]
        moved = await self._database.fetch_one(
            PROCEDURE,
            topic_key,
            *rows.keys(len(found)),
            known.version,
            Array("text", reasons) if any(reasons) else None,
        )
        return _Moved(len(found), *moved)

    async def _append_apart(self, topic_key: int, rows: _Rows, known: Known | None) -> _Moved:
        """Where the topic may be on another node than the outbox, no transaction covers both.

        So rows are published with keys by which a repetition publishes none twice, then deleted, and then their keys.
        """
        topic_id, transactions, ordinals, *columns = await self._database.fetch_one(
            "copy_outbox", topic_key, *rows.keys()
        )
        if not transactions:
            return _Moved(len(rows.ordinals), topic_id, 0, 0, 0)
        reasons: list[str | None] = [None] * len(transactions)
        if known is not None:
            found = await misfits(known.schema, columns[0])
            reasons = [None if misfit is None else misfit.detail for misfit in found]
        fits = [place for place, reason in enumerate(reasons) if reason is None]
        keys = Array("text", [f"{transactions[place]}:{ordinals[place]}" for place in fits])
        moved = await self._database.fetch_one(
            "publish_outbox",
            *(topic_key, keys),
            *(Array(kind, [of[place] for place in fits]) for kind, of in zip(_COLUMNS, columns, strict=True)),
            0 if known is None else known.version,
        )
        deleted, refused = await self._database.fetch_one(
            "finish_outbox",
            topic_key,
            Array("int8", transactions[: len(reasons)]),
            Array("int8", ordinals[: len(reasons)]),
            Array("text", reasons) if any(reasons) else None,
        )
        await self._database.fetch_one("forget_outbox_keys", topic_key, keys)
        checked = len(rows.ordinals) if len(reasons) == len(transactions) else len(reasons)
        return _Moved(checked, topic_id, moved[0] or 0, deleted if moved[0] is None else 0, refused)

    def _count(self, topic_key: int, moved: _Moved) -> None:
        if moved.moved:
            self._counters.published(moved.topic_id, moved.moved)
            self._on_relayed(topic_key, moved.moved)
        if moved.refused:
            self._counters.refused(moved.topic_id, moved.refused)
            logger.warning(
                "messages from SQL do not match the schema of their topic: topic_id=%s refused=%s",
                moved.topic_id,
                moved.refused,
            )
        if moved.dropped:
            self._counters.outbox_dropped(moved.dropped)
            logger.warning("messages from SQL are dropped because their topic was deleted: count=%s", moved.dropped)

    async def _count_settled(self, rows: _Rows) -> bool:
        for *keys, subscription_id, acked, nacked, rejected, dead in await self._database.fetch_all(
            "take_settled", *rows.keys()
        ):
            if subscription_id is not None:
                self._counters.acked(subscription_id, acked)
                self._counters.nacked(subscription_id, nacked)
                self._counters.rejected(subscription_id, rejected)
                self._counters.dead_lettered(subscription_id, dead)
                self._on_settled(SubscriptionKey(*keys))
        return True

    def _give_up(self, topic_key: int, error: Exception) -> None:
        expected = isinstance(error, Unavailable)
        logger.warning(
            "messages from SQL wait in the outbox: topic_key=%s error=%s", topic_key, error, exc_info=not expected
        )
        self._stuck.add(topic_key)
        self._trouble()


def _by_topic(topics: Sequence[int], transactions: Sequence[int], ordinals: Sequence[int]) -> dict[int, _Rows]:
    by_topic: dict[int, _Rows] = {}
    for topic_key, transaction, ordinal in zip(topics, transactions, ordinals, strict=True):
        rows = by_topic.setdefault(topic_key, _Rows())
        rows.transactions.append(transaction)
        rows.ordinals.append(ordinal)
    return by_topic
