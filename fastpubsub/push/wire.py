"""HTTP/1.1 connections to an endpoint, made to addresses that were looked up and judged, and to no others.

No redirects, no proxies, no second look at the name: a client that does more than this can be led astray by more.
"""

import asyncio
import ipaddress
import ssl
from collections import deque
from contextlib import suppress
from typing import NamedTuple, cast

from fastpubsub.addresses import Address
from fastpubsub.push.answers import AnswerReader, PushAnswer
from fastpubsub.push.failures import PushFailed, Refused, Unreachable
from fastpubsub.push.resolver import Resolver
from fastpubsub.push.tls import Tls

IDLE_SECONDS = 20.0
MAX_AGE_SECONDS = 60.0
"""After which a connection is made anew, to where the name leads then."""


REFUSALS = (
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
)
"""Of the certificate of whoever connects, as OpenSSL names them."""


class Origin(NamedTuple):
    host: str
    port: int
    is_secure: bool


class Connection(asyncio.Protocol):
    def __init__(self, born: float) -> None:
        self.born = self.idle_since = born
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answered: asyncio.Future[None] | None = None
        self.refusal: ssl.SSLError | None = None
        """Of our certificate, or because there was none: with TLS 1.3 it comes after the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def peer(self) -> Address:
        """Raises ValueError when it is not there any more."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return ipaddress.ip_address(name[0] if name else "")

    def is_usable(self, now: float) -> bool:
        is_fresh = now - self.born < MAX_AGE_SECONDS and now - self.idle_since < IDLE_SECONDS
        return is_fresh and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes, reader: AnswerReader) -> None:
        """Returns when there is nothing more to read."""
        if self._transport is None or self._transport.is_closing():
            return
        self._reader = reader
        self._answered = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._answered
        finally:
            self._answered = None

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done() or self._reader is None:
            self.close()  # what was not asked for would be taken for the next answer
            return
        try:
            if self._reader.feed(data):
                self._answered.set_result(None)
        except PushFailed as error:
            self._answered.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, ssl.SSLError) and _is_refusal(error):
            self.refusal = error
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


class Wire:
    """To one origin."""

    def __init__(self, origin: Origin, resolver: Resolver, tls: Tls) -> None:
        self._origin = origin
        self._resolver = resolver
        self._tls = tls if origin.is_secure else None
        self._idle: deque[Connection] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, request: bytes, seconds: float) -> PushAnswer:
        """Raises Unreachable when the request did not leave, and PushFailed when it got no answer in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if (connection := self._take(loop.time())) is not None:
            reader = AnswerReader()
            answer = await self._ask(connection, request, reader, deadline)
            if answer is not None:
                return answer
            if reader.has_begun or loop.time() >= deadline:
                raise _unanswered(seconds, is_late=loop.time() >= deadline)
            # The endpoint closed it while it was idle: once more, over a new one.
        connection = await self._connect(deadline)
        answer = await self._ask(connection, request, AnswerReader(), deadline)
        if answer is None:
            raise _unanswered(seconds, is_late=loop.time() >= deadline)
        return answer

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()

    def _take(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now):
                return connection
            connection.close()
        return None

    async def _ask(
        self, connection: Connection, request: bytes, reader: AnswerReader, deadline: float
    ) -> PushAnswer | None:
        try:
            async with asyncio.timeout_at(deadline):
                await connection.ask(request, reader)
        except TimeoutError:
            pass
        finally:
            if reader.is_whole and reader.is_reusable:
                self._put(connection)
            else:
                connection.close()
        if connection.refusal is not None and not reader.has_begun:
            raise Unreachable(f"no connection: {_reason(connection.refusal)}")
        return reader.answer()

    def _put(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._close_old)

    def _close_old(self) -> None:
        """Those that nothing takes any more: an endpoint that gets nothing costs no connections."""
        loop = asyncio.get_running_loop()
        for _ in range(len(self._idle)):
            connection = self._idle.popleft()
            if connection.is_usable(loop.time()):
                self._idle.append(connection)
            else:
                connection.close()
        self._sweep = loop.call_later(IDLE_SECONDS, self._close_old) if self._idle else None

    async def _connect(self, deadline: float) -> Connection:
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._resolver.addresses(self._origin.host)
                for address in addresses[:-1]:
                    with suppress(OSError):
                        async with asyncio.timeout((deadline - asyncio.get_running_loop().time()) / 2):
                            return await self._connect_to(address)
                return await self._connect_to(addresses[-1])
        except TimeoutError:
            raise Unreachable("no connection in time") from None
        except OSError as error:
            raise Unreachable(f"no connection: {_reason(error)}") from None

    async def _connect_to(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        tls, name = (self._tls.to(self._origin.host), self._origin.host) if self._tls is not None else (None, None)
        _, connection = await loop.create_connection(
            lambda: Connection(loop.time()), str(address), self._origin.port, ssl=tls, server_hostname=name
        )
        try:
            if connection.peer == address:
                return connection
        except ValueError:
            pass
        connection.close()
        raise Refused("the connection does not lead to the address that was looked up")


def _unanswered(seconds: float, *, is_late: bool) -> PushFailed:
    return PushFailed(
        f"no answer within {seconds:g} seconds" if is_late else "the connection was closed without an answer"
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and _is_refusal(error):
        return "the endpoint refuses the certificate of this server, or wants one"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    return error.strerror or "the connection failed"


def _is_refusal(error: ssl.SSLError) -> bool:
    return (error.reason or "").endswith(REFUSALS)
