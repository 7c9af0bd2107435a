"""Appends to the logs of topics: what comes for several topics at once shares a call, and the wait for its commit."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from fastpubsub.arrays import Array
from fastpubsub.coalescer import Bounds, Coalescer
from fastpubsub.database import Database
from fastpubsub.payloads import Batch
from fastpubsub.services.schemas import StoreKey, split

_SMALL_BYTES = 1 << 16


class Appended(NamedTuple):
    """The first message; the others follow it."""

    position: int
    created_at: datetime


class _Append(NamedTuple):
    key: StoreKey
    batches: Sequence[Batch]


class Appends:
    """For callers that append to one topic one after the other.

    While a call is in flight, small appends to other topics wait and then go together. There no topic waits for the
    lock of another: what was left out for it is called for by itself, and so is what is large.
    """

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self._calls = 0
        self._together = Coalescer(self._call_together, bounds)

    async def append(self, key: StoreKey, batches: Sequence[Batch]) -> Appended:
        size = sum(batch.size for batch in batches)
        appended = None
        if self._calls and size <= _SMALL_BYTES:
            rows = sum(len(batch.payloads) for batch in batches)
            appended = await self._together.submit(None, _Append(key, batches), rows=rows, size=size)
        return appended or await self._call(key, batches)

    async def _call(self, key: StoreKey, batches: Sequence[Batch]) -> Appended:
        topic_key, *schema_version = split(key)
        self._calls += 1
        try:
            row = await self._database.fetch_one("publish_messages", topic_key, *columns(batches), *schema_version)
        finally:
            self._calls -= 1
        return Appended(*row)

    async def _call_together(self, _: None, appends: Sequence[_Append]) -> Sequence[Appended | None]:
        """None for what `publish_messages` must be called for, to wait or to say what is wrong."""
        if len(appends) == 1:
            return [await self._call(*appends[0])]
        counts = [sum(len(batch.payloads) for batch in append.batches) for append in appends]
        keys = [split(append.key) for append in appends]
        self._calls += 1
        try:
            positions, times = await self._database.fetch_one(
                "publish_to_topics",
                Array("int8", [key[0] for key in keys]),
                Array("int8", [key[1] if len(key) > 1 else 0 for key in keys]),
                Array("int4", list(accumulate(counts[:-1], initial=0))),
                Array("int4", [place for place, count in enumerate(counts, 1) for _ in range(count)]),
                *columns([batch for append in appends for batch in append.batches]),
            )
        finally:
            self._calls -= 1
        return [
            None if position is None else Appended(position, time)
            for position, time in zip(positions, times, strict=True)
        ]


def columns(batches: Sequence[Batch]) -> tuple[Array, Array | None]:
    """Payloads, and attributes where there are any."""
    payloads = Array("json", [payload for batch in batches for payload in batch.payloads])
    if all(batch.attributes is None for batch in batches):
        return payloads, None
    return payloads, Array(
        "jsonb", [one for batch in batches for one in (batch.attributes or [None] * len(batch.payloads))]
    )
