"""Publishes in the background: it takes single messages, sends batches, and returns a future for each message."""

import asyncio
import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from fastpubsub.client.connections import AsyncConnection, Connection
from fastpubsub.client.errors import BusError, Closed, InvalidRequest, TooLarge
from fastpubsub.client.exchange import Flow
from fastpubsub.client.requests import Encoded, Outgoing, Payload, Request, address, encode, publish_encoded
from fastpubsub.client.topics import AnyTopic
from fastpubsub.client.typed import publishes_one

LARGE = 100
"""Messages of a batch from which on the next one is sent before all callers of it have been answered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A message is sent at once when no batch of its topic is in flight, and otherwise with all that came meanwhile.

    `linger` is how many seconds the first one waits for others: batches get larger, and answers come later. A batch has
    at most `max_messages` and `max_bytes`. Publishing waits while `max_pending` messages or `max_pending_bytes` are not
    answered yet: memory is bounded, and a server that is unavailable slows its publishers down.
    """

    linger: float = 0.0
    max_messages: int = 500
    max_bytes: int = 1 << 20
    max_pending: int = 10_000
    max_pending_bytes: int = 64 << 20


class Waiter(Protocol):
    """The common part of asyncio's and concurrent's futures."""

    def done(self) -> bool: ...
    def set_result(self, result: str, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


W = TypeVar("W", bound=Waiter)


@dataclass(slots=True)
class Entry(Generic[W]):
    message: Encoded
    size: int
    waiter: W


@dataclass(slots=True)
class Line(Generic[W]):
    """What waits of a topic."""

    entries: deque[Entry[W]] = field(default_factory=deque)
    size: int = 0


class Buffer(Generic[W]):
    """The messages that wait, by topic, and those on their way: both count as pending."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[str, Line[W]] = {}
        self.pending = 0
        self._pending_bytes = 0

    def has_room(self, size: int) -> bool:
        within = self._pending_bytes + size <= self._limits.max_pending_bytes
        return self.pending == 0 or (within and self.pending < self._limits.max_pending)

    def add(self, topic_id: str, entry: Entry[W]) -> None:
        line = self._lines.get(topic_id)
        if line is None:
            line = self._lines[topic_id] = Line()
        line.entries.append(entry)
        line.size += entry.size
        self.pending += 1
        self._pending_bytes += entry.size

    def waiting(self, topic_id: str) -> int:
        """How many messages of a topic are not on their way yet."""
        line = self._lines.get(topic_id)
        return 0 if line is None else len(line.entries)

    def next_topic(self) -> str | None:
        return next(iter(self._lines), None)

    def is_full(self, topic_id: str) -> bool:
        line = self._lines[topic_id]
        return len(line.entries) >= self._limits.max_messages or line.size >= self._limits.max_bytes

    def take(self, topic_id: str) -> list[Entry[W]]:
        """A batch in the order of publishing; the topic goes to the end of the line."""
        line = self._lines.pop(topic_id, None)
        batch: list[Entry[W]] = []
        size = 0
        while line and line.entries and len(batch) < self._limits.max_messages:
            size += line.entries[0].size
            if batch and size > self._limits.max_bytes:
                break
            batch.append(line.entries.popleft())
        if line and line.entries:
            line.size -= sum(entry.size for entry in batch)
            self._lines[topic_id] = line
        return batch

    def forget(self, batch: list[Entry[W]]) -> None:
        """It was answered."""
        self.pending -= len(batch)
        self._pending_bytes -= sum(entry.size for entry in batch)


Exchange: TypeAlias = Callable[[Request[list[str]]], Flow[list[str]]]
Stored: TypeAlias = Callable[[list[Entry[W]], list[str]], None]


def deliver(exchange: Exchange, topic_id: str, batch: list[Entry[W]], stored: Stored[W]) -> Flow[None]:
    """Calls `stored` with what is stored. A refused message does not fail the others of its batch: halves are tried."""
    request = publish_encoded(topic_id, [entry.message for entry in batch])
    try:
        ids = yield from exchange(request)
    except BusError as error:
        if len(batch) == 1 or not isinstance(error, InvalidRequest | TooLarge):
            fail(batch, error)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from deliver(exchange, topic_id, half, stored)
        return
    stored(batch, ids)


def resolve(batch: list[Entry[W]], ids: list[str]) -> None:
    for entry, id_ in zip(batch, ids, strict=True):
        if not entry.waiter.done():
            entry.waiter.set_result(id_)


def fail(batch: list[Entry[W]], error: Exception) -> None:
    for entry in batch:
        if not entry.waiter.done():
            entry.waiter.set_exception(error)


class AsyncPublisher:
    """`AsyncClient.publisher()` creates it. Messages of a topic are stored in the order of publishing."""

    def __init__(self, client: AsyncConnection, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._buffer: Buffer[asyncio.Future[str]] = Buffer(limits)
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._full: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Condition()
        self._closed = False

    @publishes_one
    async def publish(
        self,
        topic_id: AnyTopic,
        payload: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        *,
        ordering_key: str | None = None,
    ) -> str:
        """Returns the id of the message once it is stored."""
        future = await self.enqueue(topic_id, payload, attributes, ordering_key=ordering_key)
        return await future

    @publishes_one
    async def enqueue(
        self,
        topic_id: AnyTopic,
        payload: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        *,
        ordering_key: str | None = None,
    ) -> asyncio.Future[str]:
        """Waits for room only; the future has the id, or the error, once the server has answered."""
        topic_id = address(topic_id, payload)
        message = encode(payload, attributes, ordering_key)
        size = message.size
        if not self._closed and not self._buffer.has_room(size):
            async with self._changed:
                await self._changed.wait_for(lambda: self._closed or self._buffer.has_room(size))
        if self._closed:
            raise Closed("the publisher is closed")
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._buffer.add(topic_id, Entry(message, size, future))
        if topic_id not in self._senders:
            self._full[topic_id] = asyncio.Event()
            self._senders[topic_id] = asyncio.create_task(self._send(topic_id))
        if self._limits.linger > 0 and self._buffer.is_full(topic_id):
            self._full[topic_id].set()
        return future

    async def flush(self) -> None:
        """Waits until everything published so far is answered."""
        while self._senders:
            for full in self._full.values():
                full.set()
            await asyncio.wait(list(self._senders.values()))

    async def close(self) -> None:
        """Sends what waits; nothing can be published any more."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def _send(self, topic_id: str) -> None:
        """Sends until nothing waits; batches grow while one is on its way, so only the first may linger."""
        if self._limits.linger > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.linger):
                    await self._full[topic_id].wait()
        while batch := self._buffer.take(topic_id):
            try:
                await self._client.run(deliver(self._client.flow, topic_id, batch, partial(self._stored, topic_id)))
            except Exception as error:  # noqa: BLE001 - everybody is answered
                fail(batch, error)
            self._buffer.forget(batch)
            async with self._changed:
                self._changed.notify_all()
            if self._buffer.waiting(topic_id) < LARGE:
                await asyncio.sleep(0)  # the callers that were answered publish their next messages, which go together
        del self._senders[topic_id], self._full[topic_id]

    def _stored(self, topic_id: str, batch: list[Entry[asyncio.Future[str]]], ids: list[str]) -> None:
        """Of a large batch it answers some callers, who make the next one, and the others while that is on its way."""
        first = len(batch)
        if first >= LARGE:
            first = 0 if self._buffer.waiting(topic_id) >= LARGE else first // 2
        resolve(batch[:first], ids[:first])
        asyncio.get_running_loop().call_soon(resolve, batch[first:], ids[first:])


class Publisher:
    """`Client.publisher()` creates it, with one thread. Messages of a topic are stored in the order of publishing."""

    def __init__(self, client: Connection, limits: Limits) -> None:
        self._client = client
        self._limits = limits
        self._buffer: Buffer[Future[str]] = Buffer(limits)
        self._changed = threading.Condition()
        self._hurry = False
        self._closed = False
        self._thread = threading.Thread(target=self._send, name="fastpubsub-publisher", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @publishes_one
    def publish(
        self,
        topic_id: AnyTopic,
        payload: Payload | Outgoing,
        attributes: Mapping[str, str] | None = None,
        *,
        ordering_key: str | None = None,
    ) -> Future[str]:
        """Waits for room only; the future has the id, or the error, once the server has answered."""
        topic_id = address(topic_id, payload)
        message = encode(payload, attributes, ordering_key)
        size = message.size
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._buffer.has_room(size))
            if self._closed:
                raise Closed("the publisher is closed")
            self._buffer.add(topic_id, Entry(message, size, future))
            if self._buffer.pending == 1 or self._buffer.is_full(topic_id):
                self._changed.notify_all()
        return future

    def flush(self) -> None:
        """Waits until everything published so far is answered."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._buffer.pending == 0)
            self._hurry = False

    def close(self) -> None:
        """Sends what waits; nothing can be published any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _send(self) -> None:
        lingered = False
        while True:
            with self._changed:
                topic_id = self._buffer.next_topic()
                if topic_id is None:
                    if self._closed:
                        return
                    lingered = False
                    self._changed.wait_for(lambda: self._closed or self._buffer.next_topic() is not None)
                    continue
                if not lingered:
                    self._linger(topic_id)
                    lingered = True
                batch = self._buffer.take(topic_id)
            try:
                self._client.run(deliver(self._client.flow, topic_id, batch, resolve))
            except Exception as error:  # noqa: BLE001 - everybody is answered
                fail(batch, error)
            with self._changed:
                self._buffer.forget(batch)
                self._changed.notify_all()

    def _linger(self, topic_id: str) -> None:
        until = time.monotonic() + self._limits.linger
        self._changed.wait_for(
            lambda: self._closed or self._hurry or self._buffer.is_full(topic_id) or time.monotonic() >= until,
            self._limits.linger,
        )
