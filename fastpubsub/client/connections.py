"""The sending half of the clients: what to do comes from `exchange`, and these two loops do it over a wire."""

import asyncio
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self, TypeVar

import httpx

from fastpubsub import __version__
from fastpubsub.client.bodies import ENCODINGS
from fastpubsub.client.checks import address_fault, credential_fault
from fastpubsub.client.direct import IDLE_SECONDS, MAX_CONNECTIONS, AsyncDirectWire, DirectWire, Origin
from fastpubsub.client.errors import ConnectionFailed
from fastpubsub.client.exchange import (
    Answer,
    Authorize,
    Effect,
    Flow,
    Lost,
    Pause,
    Policy,
    Send,
    Tokens,
    exchange,
)
from fastpubsub.client.over_httpx import AsyncHttpxWire, HttpxWire, head, pieces, pieces_as_they_come
from fastpubsub.client.requests import Request
from fastpubsub.client.waiting import TaskWatch, ThreadWatch, Watch

T = TypeVar("T")
Http = TypeVar("Http")

PROXIES: tuple[str, ...] = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES: tuple[str, ...] = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")

DEFAULT_URL = "http://localhost:8000"
URL, CLIENT_ID, CLIENT_SECRET = ENVIRONMENT = ("FASTPUBSUB_URL", "FASTPUBSUB_CLIENT_ID", "FASTPUBSUB_CLIENT_SECRET")
CONNECTIONS = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=IDLE_SECONDS)
STREAMS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
SILENCE_SECONDS = 60.0
"""A stream that is alive says something every 15 seconds."""

HEADERS = {
    "User-Agent": f"fastpubsub-python/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": ENCODINGS,
}
ONCE = Policy(attempts=1)
ONCE_MORE = replace(ONCE, is_aloud=False)
"""For those who repeat it themselves, and have said so."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Misconfigured(ValueError):
    """The server, proxies or certificates that the caller or the environment names cannot be used."""


def _make(make: Callable[..., Http], options: Mapping[str, Any]) -> Http:
    try:
        return make(**options)
    except OSError as error:
        names, reason = CERTIFICATES, str(error)
    except ImportError:
        names, reason = PROXIES, "a SOCKS proxy needs the package socksio: pip install 'httpx[socks]'"
    except (ValueError, httpx.InvalidURL) as error:
        names, reason = PROXIES, str(error)
    given = [name for name in sorted(os.environ) if name.upper() in names and os.environ[name]]
    raise Misconfigured(f"{', '.join(given)}: {reason}")


def _tokens(client_id: str | None, client_secret: str | None) -> Tokens | None:
    given = {CLIENT_ID: client_id, CLIENT_SECRET: client_secret}
    values = {name: value or os.environ.get(name) or "" for name, value in given.items()}
    missing = [name for name, value in values.items() if not value]
    if len(missing) == 1:
        raise Misconfigured(f"{missing[0]}: a client id and its secret go together: give both, or none")
    if missing:
        return None
    for (name, value), what in zip(values.items(), ("client id", "client secret"), strict=True):
        if fault := credential_fault(value):
            raise Misconfigured(f"{'' if given[name] else f'{name}: '}the {what} {fault}")
    return Tokens(*values.values())


class _Settings:
    """Missing arguments are taken from FASTPUBSUB_URL, FASTPUBSUB_CLIENT_ID and FASTPUBSUB_CLIENT_SECRET."""

    _watch: Watch

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.url = url or os.environ.get(URL) or DEFAULT_URL
        if fault := address_fault(self.url):
            raise Misconfigured(f"{'' if url else f'{URL}: '}the address of a server {fault}")
        self._address = httpx.URL(self.url)
        self._policy = policy or Policy()
        self._max_answer_bytes = self._policy.max_answer_bytes
        self._tokens = _tokens(client_id, client_secret)

    def flow(self, request: Request[T], policy: Policy | None = None) -> Flow[T]:
        """Returns the steps of a request, for `run`."""
        return exchange(request, policy or self._policy, self._tokens, self._watch)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """With the certificates of the environment; loaded once, because that takes longer than a call."""
        return _make(httpx.create_ssl_context, {})

    def _options(self, transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None) -> dict[str, Any]:
        """Of httpx."""
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # no server of ours sets one
        options = {"base_url": self.url, "headers": HEADERS, "limits": CONNECTIONS, "cookies": cookies}
        return options | ({"verify": self._tls} if transport is None else {"transport": transport})

    def _origin(self, transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None) -> Origin | None:
        """Where calls go directly; None when there is something on the way that httpx knows."""
        url = self._address
        proxies = urllib.request.getproxies()
        is_proxied = bool({url.scheme, "all"} & proxies.keys()) and not urllib.request.proxy_bypass(url.host)
        if transport is not None or is_proxied or url.userinfo:
            return None
        return Origin(url, HEADERS, self._tls if url.scheme == "https" else None)


class Connection(_Settings):
    """The connection of a `Client`."""

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        policy: Policy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, client_id, client_secret, policy)
        self._httpx = HttpxWire(_make(httpx.Client, self._options(transport)), self._max_answer_bytes)
        origin = self._origin(transport)
        self._wire = self._httpx if origin is None else DirectWire(origin, self._max_answer_bytes)
        self._lock = threading.Lock()
        self._watch = ThreadWatch()

    def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Sends any request of `fastpubsub.client.requests`."""
        return self.run(self.flow(request, policy))

    @contextmanager
    def stream(self, request: Request[Any], quiet_seconds: float, policy: Policy = ONCE) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come; tried once. `ConnectionFailed` when none come for `quiet_seconds`."""
        with ExitStack() as stack:
            opened: list[Iterator[bytes]] = []

            def send(effect: Send) -> Answer | Lost:
                response = stack.enter_context(self._httpx.stream(effect, quiet_seconds))
                if not response.is_success:
                    return self._httpx.answer(response)
                opened.append(pieces(response))
                return head(response)

            try:
                self.run(self.flow(request, policy), send)
                yield opened[-1]
            except httpx.RequestError as error:
                raise ConnectionFailed(_lost(error).reason) from None

    def close(self) -> None:
        self._wire.close()
        self._httpx.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def run(self, flow: Flow[T], send: Callable[[Send], Answer | Lost] | None = None) -> T:
        result = None
        try:
            while True:
                try:
                    effect = flow.send(result)
                except StopIteration as end:
                    value: T = end.value
                    return value
                result = send(effect) if send is not None and isinstance(effect, Send) else self._do(effect)
        finally:
            flow.close()

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Authorize):
            with self._lock:
                tokens = effect.tokens
                return tokens.current(effect.refused) or self.run(tokens.fetch(self._policy, self._watch))
        try:
            return self._wire.send(effect)
        except httpx.RequestError as error:
            return _lost(error)


class AsyncConnection(_Settings):
    """The connection of an `AsyncClient`."""

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        policy: Policy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, client_id, client_secret, policy)
        self._httpx = AsyncHttpxWire(_make(httpx.AsyncClient, self._options(transport)), self._max_answer_bytes)
        self._streams = None if transport is None else self._httpx
        self.is_in_memory: bool = getattr(transport, "is_in_memory", False)
        origin = self._origin(transport)
        self._wire = self._httpx if origin is None else AsyncDirectWire(origin, self._max_answer_bytes)
        self._lock = asyncio.Lock()
        self._watch = TaskWatch()

    async def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Sends any request of `fastpubsub.client.requests`."""
        return await self.run(self.flow(request, policy))

    @asynccontextmanager
    async def open(self, request: Request[None], policy: Policy = ONCE) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer that does not end, as it comes; tried once. Silence is a lost connection."""
        if self._streams is None:
            http = _make(httpx.AsyncClient, self._options(None) | {"limits": STREAMS})
            self._streams = AsyncHttpxWire(http, self._max_answer_bytes)
        streams = self._streams
        async with AsyncExitStack() as stack:
            opened: list[AsyncIterator[bytes]] = []

            async def send(effect: Send) -> Answer | Lost:
                timeout = httpx.Timeout(effect.timeout, read=SILENCE_SECONDS)
                response = await stack.enter_async_context(streams.stream(effect, timeout))
                if not response.is_success:
                    return await streams.answer(response)
                opened.append(pieces_as_they_come(response))
                return head(response)

            try:
                await self.run(self.flow(request, policy), send)
                yield opened[-1]
            except httpx.RequestError as error:
                raise ConnectionFailed(_lost(error).reason) from None

    async def close(self) -> None:
        await self._wire.close()
        await self._httpx.close()
        if self._streams is not None:
            await self._streams.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def run(self, flow: Flow[T], send: Callable[[Send], Awaitable[Answer | Lost]] | None = None) -> T:
        result = None
        try:
            while True:
                try:
                    effect = flow.send(result)
                except StopIteration as end:
                    value: T = end.value
                    return value
                result = await (send(effect) if send is not None and isinstance(effect, Send) else self._do(effect))
        finally:
            flow.close()

    async def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Authorize):
            async with self._lock:
                tokens = effect.tokens
                return tokens.current(effect.refused) or await self.run(tokens.fetch(self._policy, self._watch))
        try:
            return await self._wire.send(effect)
        except httpx.RequestError as error:
            return _lost(error)


def _lost(error: httpx.RequestError) -> Lost:
    return Lost(f"{type(error).__name__}: {error}".rstrip(": "), not isinstance(error, NEVER_SENT))
