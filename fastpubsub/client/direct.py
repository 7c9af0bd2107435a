"""The wire of ordinary calls: connections of our own, because a publish over httpx takes as long as ten over these.

What needs more than a connection to the server and an answer that ends goes over httpx (`over_httpx`).
"""

import asyncio
import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

import httpx

from fastpubsub.client.errors import UnexpectedAnswer
from fastpubsub.client.exchange import Answer, Send
from fastpubsub.client.http1 import AnswerReader, RequestWriter

MAX_CONNECTIONS = 100
IDLE_SECONDS = 60.0
"""Idle ones are closed before the server does it, after 65 s."""

HAPPY_EYEBALLS: dict[str, Any] = {"happy_eyeballs_delay": 0.25}
"""Seconds after which another address of a server is tried beside the first."""

RECEIVE_BYTES = 1 << 16
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Idle(Protocol):
    idle_since: float

    @property
    def is_open(self) -> bool: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Idle)


class Pool(Generic[C]):
    """Connections that carry nothing; safe for threads. The one that was used last is taken first."""

    def __init__(self) -> None:
        self._idle: deque[C] = deque()
        self.is_closed = False

    def take(self) -> C | None:
        if self.is_closed:
            raise RuntimeError("the client is closed")
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if time.monotonic() - connection.idle_since < IDLE_SECONDS and connection.is_open:
                    return connection
                connection.close()
        return None

    def put(self, connection: C) -> None:
        connection.idle_since = now = time.monotonic()
        self._idle.append(connection)
        with suppress(IndexError):
            while self.is_closed or now - self._idle[0].idle_since >= IDLE_SECONDS:
                self._idle.popleft().close()

    def forget(self) -> None:
        """They belong to an event loop or a process that is another one."""
        self._idle = deque()

    def close(self) -> None:
        self.is_closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


class Origin:
    """A server: where it is, and how it is written to."""

    def __init__(self, url: httpx.URL, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self.host = url.raw_host.decode("ascii")
        self.port = url.port or (80 if tls is None else 443)
        self.tls = tls
        self.writer = RequestWriter(url, headers)
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])


class Line:
    """A connection of a `DirectWire`."""

    def __init__(self, origin: Origin, deadline: float) -> None:
        self.idle_since = 0.0
        address = (origin.host, origin.port)
        try:
            self._socket = socket.create_connection(address, _left(deadline))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.tls is not None:
                self._socket = origin.tls.wrap_socket(self._socket, server_hostname=origin.host)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from None
        except (OSError, ValueError, OverflowError) as error:  # no name, or no port, that could be looked up
            raise httpx.ConnectError(str(error)) from None
        self._selector = _Selector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    @property
    def is_open(self) -> bool:
        """Nothing has come that was not asked for, neither bytes nor the end."""
        return not self._selector.select(0)

    def close(self) -> None:
        self._selector.close()
        self._socket.close()

    def ask(self, request: bytes, reader: AnswerReader, deadline: float) -> None:
        try:
            self._socket.settimeout(_left(deadline))
            with suppress(ConnectionError):  # perhaps it has answered before it had read everything
                self._socket.sendall(request)
            while True:
                self._socket.settimeout(_left(deadline))
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    reader.end()
                    return
                if reader.feed(data):
                    return
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from None
        except OSError as error:
            raise httpx.ReadError(str(error)) from None


class DirectWire:
    """For threads."""

    def __init__(self, origin: Origin, max_answer_bytes: int) -> None:
        self._origin = origin
        self._max_answer_bytes = max_answer_bytes
        self._process = os.getpid()
        self._permits = threading.Semaphore(MAX_CONNECTIONS)
        self._pool: Pool[Line] = Pool()

    def send(self, effect: Send) -> Answer:
        deadline = time.monotonic() + effect.timeout
        request, reader = self._origin.writer.write(effect), AnswerReader(self._max_answer_bytes)
        if self._process != os.getpid():  # a child process must not speak over the connections of its parent
            self._process, self._permits = os.getpid(), threading.Semaphore(MAX_CONNECTIONS)
            self._pool.forget()
        permits = self._permits
        if not permits.acquire(timeout=effect.timeout):
            raise httpx.PoolTimeout(f"all {MAX_CONNECTIONS} connections are busy")
        try:
            line = self._pool.take() or Line(self._origin, deadline)
            try:
                line.ask(request, reader, deadline)
            except BaseException:
                line.close()
                raise
            if reader.is_reusable:
                self._pool.put(line)
            else:
                line.close()
        finally:
            permits.release()
        return reader.answer()

    def close(self) -> None:
        self._pool.close()


class AsyncLine(asyncio.Protocol):
    """A connection of an `AsyncDirectWire`."""

    _transport: asyncio.Transport
    _reader: AnswerReader
    _answered: asyncio.Future[None] | None = None
    """While it is asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    @property
    def is_flushed(self) -> bool:
        return self._transport.get_write_buffer_size() == 0

    def close(self) -> None:
        self._transport.abort()

    async def ask(self, request: bytes, reader: AnswerReader, seconds: float) -> None:
        self._reader = reader
        self._answered = answered = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._time_out)
        try:
            self._transport.write(request)
            await answered
        finally:
            self._answered = None
            timer.cancel()

    def _time_out(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(httpx.ReadTimeout("timed out"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answered = self._answered
        if answered is None or answered.done():
            self._transport.abort()  # what was not asked for would be taken for the next answer
            return
        try:
            if self._reader.feed(data):
                answered.set_result(None)
        except (UnexpectedAnswer, httpx.RemoteProtocolError) as error:
            answered.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if error is not None:
            answered.set_exception(httpx.ReadError(str(error)))
            return
        try:
            self._reader.end()
            answered.set_result(None)
        except httpx.RemoteProtocolError as early:
            answered.set_exception(early)


class AsyncDirectWire:
    """For the tasks of an event loop; of another one after that."""

    def __init__(self, origin: Origin, max_answer_bytes: int) -> None:
        self._origin = origin
        self._max_answer_bytes = max_answer_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: Pool[AsyncLine] = Pool()
        self._permits = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(self, effect: Send) -> Answer:
        request, reader = self._origin.writer.write(effect), AnswerReader(self._max_answer_bytes)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._permits = loop, asyncio.Semaphore(MAX_CONNECTIONS)
            self._pool.forget()
        deadline = loop.time() + effect.timeout
        await self._acquire(deadline)
        try:
            line = self._pool.take() or await self._connect(loop, deadline)
            try:
                await line.ask(request, reader, deadline - loop.time())
            except BaseException:
                line.close()
                raise
            if reader.is_reusable and line.is_flushed:
                self._pool.put(line)
            else:
                line.close()
        finally:
            self._permits.release()
        return reader.answer()

    async def close(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            self._pool.forget()
        self._pool.close()
        await asyncio.sleep(0)  # in which the sockets are closed

    async def _acquire(self, deadline: float) -> None:
        if not self._permits.locked():
            await self._permits.acquire()  # at once
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._permits.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(f"all {MAX_CONNECTIONS} connections are busy") from None

    async def _connect(self, loop: asyncio.AbstractEventLoop, deadline: float) -> AsyncLine:
        origin = self._origin
        options = HAPPY_EYEBALLS if isinstance(loop, asyncio.BaseEventLoop) else {}  # uvloop does not know them
        try:
            async with asyncio.timeout_at(deadline):
                _, line = await loop.create_connection(
                    lambda: AsyncLine(loop), origin.host, origin.port, ssl=origin.tls, **options
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from None
        except (OSError, ValueError, OverflowError) as error:  # no name, or no port, that could be looked up
            raise httpx.ConnectError(str(error)) from None
        return line


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
