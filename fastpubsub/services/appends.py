"""Appends to the logs of topics: what comes for several topics at once shares a call, and the wait for its commit."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from fastpubsub.database.arrays import Array
from fastpubsub.database.calls import Database, blames_arguments, is_unsupported
from fastpubsub.payloads import Batch, Expiry
from fastpubsub.services.coalescer import CALL_BYTES, CALL_ROWS
from fastpubsub.services.surviving import Surviving
from fastpubsub.services.topic_schemas import StoreKey, split
from fastpubsub.tasks import Tasks

logger = logging.getLogger(__name__)

_SMALL_BYTES = 1 << 14
_PATIENCE_SECONDS = 0.005


class Appended(NamedTuple):
    """The first message; the others follow it."""

    position: int
    created_at: datetime


class Append:
    __slots__ = ("answer", "batches", "key", "rows", "size")

    def __init__(self, key: StoreKey, batches: Sequence[Batch], answer: "asyncio.Future[Appended | None]") -> None:
        self.key = key
        self.batches = batches
        self.rows = sum(len(batch.payloads) for batch in batches)
        self.size = sum(batch.size for batch in batches)
        self.answer = answer


class Appends:
    """The calls of a coalescer that has one append in flight for each topic, and asks whether it is `ready`.

    A call costs more than what is in it, and its commit waits for the disk. So while one is in flight, small appends to
    other topics wait and then go together. No topic waits for a lock of another, and longer than a moment for nothing:
    what a call of several leaves out is called for by itself, and so is what is large. Where topics are on several
    nodes, no call is for several of them.
    """

    one: type[Append] = Append

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls = 0
        self._waiting = 0
        self._leaving = 0
        self._departure: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._together: list[Append] = []
        self._is_apart = False
        self._answering = Tasks()

    async def ready(self, size: int) -> None:
        """Waits until no call is in flight that others wait for, or that one takes long."""
        if not (self._calls or self._leaving) or size > _SMALL_BYTES or self._is_apart:
            return
        if self._departure is None:
            loop = asyncio.get_running_loop()
            self._departure = loop.create_future()
            self._timer = loop.call_later(_PATIENCE_SECONDS, self._depart)
        self._waiting += 1
        await self._departure

    async def append(self, key: StoreKey, batches: Sequence[Batch]) -> Appended:
        if sum(batch.size for batch in batches) > _SMALL_BYTES:
            return await self._call(key, batches)
        if self._leaving <= 1 or self._is_apart:
            with self._counted():
                return await self._call(key, batches)
        append = self.one(key, batches, asyncio.get_running_loop().create_future())
        self._together.append(append)
        return await append.answer or await self._call(key, batches)

    def _depart(self) -> None:
        """Waiting requests append in the next turn of the event loop; the call takes all appends of that turn."""
        if self._departure is not None and self._timer is not None:
            self._timer.cancel()
            self._departure.set_result(None)
            self._departure = None
            self._leaving, self._waiting = self._waiting, 0
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._leaving = 0
        appends, self._together = self._together, []
        for group in _groups(appends):
            self._answering.start(self._answer(group))

    async def _answer(self, appends: Sequence[Append]) -> None:
        """Returns None for an append that needs its own call, to wait or to get its error."""
        answers: Sequence[Appended | None] = [None] * len(appends)
        is_refused = False
        try:
            answers = await self._call_together(appends)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            is_refused = is_unsupported(error)
            if not (blames_arguments(error) or is_refused):
                for append in appends:
                    append.answer.set_exception(error)
                return
        for append, answer in zip(appends, answers, strict=True):
            append.answer.set_result(answer)
        if is_refused:
            with Surviving(logger, "asking where topics are"):
                self._is_apart = await self._database.is_spread(ask_again=True)

    async def _call(self, key: StoreKey, batches: Sequence[Batch]) -> Appended:
        topic_key, *schema_version = split(key)
        return Appended(
            *await self._database.fetch_one(
                "publish_messages", topic_key, *columns(batches), *(schema_version or [0]), *more_columns(batches)
            )
        )

    async def _call_together(self, appends: Sequence[Append]) -> list[Appended | None]:
        counts = [append.rows for append in appends]
        keys = [split(append.key) for append in appends]
        batches = [batch for append in appends for batch in append.batches]
        with self._counted():
            positions, times = await self._database.fetch_one(
                "publish_to_topics",
                Array("int8", [key[0] for key in keys]),
                Array("int8", [key[1] if len(key) > 1 else 0 for key in keys]),
                Array("int4", list(accumulate(counts[:-1], initial=0))),
                Array("int4", [place for place, count in enumerate(counts, 1) for _ in range(count)]),
                *columns(batches),
                *more_columns(batches),
            )
        return [
            None if position is None else Appended(position, time)
            for position, time in zip(positions, times, strict=True)
        ]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._depart()


def _groups(appends: Iterable[Append]) -> Iterator[list[Append]]:
    """Splits appends into groups that each fit a call."""
    group: list[Append] = []
    rows = size = 0
    for append in appends:
        rows += append.rows
        size += append.size
        if group and (rows > CALL_ROWS or size > CALL_BYTES):
            yield group
            group, rows, size = [], append.rows, append.size
        group.append(append)
    if group:
        yield group


def columns(batches: Sequence[Batch]) -> tuple[Array, Array | None]:
    """Payloads, and attributes where there are any."""
    payloads = Array("json", [payload for batch in batches for payload in batch.payloads])
    if all(batch.attributes is None for batch in batches):
        return payloads, None
    return payloads, Array(
        "jsonb", [one for batch in batches for one in (batch.attributes or [None] * len(batch.payloads))]
    )


def more_columns(batches: Sequence[Batch]) -> tuple[object, ...]:
    """The parameters after the version of the schema: no time, the ordering keys and the expiries, where there are
    any."""
    expiries = expiry_columns(batches)
    keys = ordering_keys(batches)
    return () if keys is None and not expiries else (None, keys, *expiries)


def ordering_keys(batches: Sequence[Batch]) -> Array | None:
    if all(batch.ordering_keys is None for batch in batches):
        return None
    return Array("text", [key for batch in batches for key in (batch.ordering_keys or [None] * len(batch.payloads))])


def expiry_columns(batches: Sequence[Batch]) -> tuple[Array, ...]:
    """The times to live and the times of expiry, where there are any."""
    if all(batch.expiries is None for batch in batches):
        return ()
    expiries = [one for batch in batches for one in (batch.expiries or [Expiry(None, None)] * len(batch.payloads))]
    return (
        Array("int4", [one.ttl_seconds for one in expiries]),
        Array("timestamptz", [one.expires_at for one in expiries]),
    )
