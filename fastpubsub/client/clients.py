"""The clients: what to do comes from `exchange`, these two loops do it."""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from fastpubsub import __version__
from fastpubsub.client import requests
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
    answered,
    exchange,
)
from fastpubsub.client.publishers import AsyncPublisher, Entry, Limits, Publisher, deliver
from fastpubsub.client.requests import Request

if TYPE_CHECKING:
    from fastpubsub.client.deliveries import Delivery
    from fastpubsub.models import TopicMessage

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "http://localhost:8000"
URL, CLIENT_ID, CLIENT_SECRET = ENVIRONMENT = ("FASTPUBSUB_URL", "FASTPUBSUB_CLIENT_ID", "FASTPUBSUB_CLIENT_SECRET")
CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60)
"""Idle ones are closed before the server does it, after 65 s."""

STREAMS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
SILENCE_SECONDS = 60.0
"""A stream that is alive says something every 15 seconds."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Operation(Generic[P, T]):
    """A method of both clients: the function of `requests` that it sends; the asynchronous one is awaited."""

    def __init__(self, build: Callable[P, Request[T]]) -> None:
        self.build = build

    @overload
    def __get__(self, client: "Client", owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type | None = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type | None = None) -> Callable[P, Request[T]]: ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        build = self.build
        if client is None:
            return build
        send = client.send

        @wraps(build)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return send(build(*args, **kwargs))

        return call


class Operations:
    publish = Operation(requests.publish)
    pull = Operation(requests.pull)
    ack = Operation(requests.ack)
    nack = Operation(requests.nack)
    reject = Operation(requests.reject)
    extend = Operation(requests.extend)
    seek = Operation(requests.seek)
    metrics = Operation(requests.metrics)

    list_dead_letters = Operation(requests.list_dead_letters)
    reprocess_dead_letters = Operation(requests.reprocess_dead_letters)
    purge_dead_letters = Operation(requests.purge_dead_letters)

    create_topic = Operation(requests.create_topic)
    get_topic = Operation(requests.get_topic)
    list_topics = Operation(requests.list_topics)
    update_topic = Operation(requests.update_topic)
    delete_topic = Operation(requests.delete_topic)

    create_subscription = Operation(requests.create_subscription)
    get_subscription = Operation(requests.get_subscription)
    list_subscriptions = Operation(requests.list_subscriptions)
    update_subscription = Operation(requests.update_subscription)
    delete_subscription = Operation(requests.delete_subscription)

    create_client = Operation(requests.create_client)
    get_client = Operation(requests.get_client)
    list_clients = Operation(requests.list_clients)
    update_client = Operation(requests.update_client)
    rotate_client_secret = Operation(requests.rotate_client_secret)
    revoke_client_secret = Operation(requests.revoke_client_secret)
    delete_client = Operation(requests.delete_client)


class _Connection(Operations):
    """What is not given is taken from FASTPUBSUB_URL, FASTPUBSUB_CLIENT_ID and FASTPUBSUB_CLIENT_SECRET."""

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.url = url or os.environ.get(URL) or DEFAULT_URL
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the address of a server begins with http:// or https://, and {self.url!r} does not")
        self._policy = policy or Policy()
        client_id = client_id or os.environ.get(CLIENT_ID)
        client_secret = client_secret or os.environ.get(CLIENT_SECRET)
        if bool(client_id) != bool(client_secret):
            raise ValueError("a client id and its secret go together: give both, or none")
        self._tokens = Tokens(client_id, client_secret) if client_id and client_secret else None

    def _flow(self, request: Request[T], policy: Policy | None) -> Flow[T]:
        return exchange(request, policy or self._policy, self._tokens)

    def _options(self) -> dict[str, Any]:
        headers = {"User-Agent": f"fastpubsub-python/{__version__}", "Accept": "application/json"}
        return {"base_url": self.url, "headers": headers, "limits": CONNECTIONS}


class Client(_Connection):
    """Synchronous; safe for several threads. `transport` is httpx's, for a proxy, a socket or a test."""

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
        self._http = httpx.Client(transport=transport, **self._options())
        self._lock = threading.Lock()

    def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Any request of `fastpubsub.client.requests`."""
        return self._run(self._flow(request, policy))

    def publisher(self, limits: Limits | None = None) -> Publisher:
        """Gathers single messages into batches in the background; close it, or use `with`."""
        return Publisher(self, limits or Limits())

    def deliver(self, topic_id: str, batch: list[Entry[Future[str]]]) -> None:
        """Publishes a batch and answers its futures."""
        self._run(deliver(topic_id, batch, self._policy, self._tokens))

    @contextmanager
    def stream(self, request: Request[Any], quiet_seconds: float) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come. `ConnectionFailed` when none come for `quiet_seconds`."""
        refused: str | None = None
        try:
            while True:
                token = None if self._tokens is None else self._do(Authorize(self._tokens, refused))
                with self._http.stream(**_arguments(Send(request, token, quiet_seconds))) as response:
                    if response.status_code == httpx.codes.UNAUTHORIZED and token is not None and refused is None:
                        refused = token
                        continue
                    if response.status_code != httpx.codes.OK:
                        raise answered(_answer_read(response))
                    yield response.iter_bytes()
                    return
        except httpx.TransportError as error:
            raise ConnectionFailed(_lost(error).reason) from None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        result = None
        while True:
            try:
                effect = flow.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = self._do(effect)

    def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Authorize):
            with self._lock:
                return effect.tokens.current(effect.refused) or self._run(effect.tokens.fetch(self._policy))
        try:
            return _answer(self._http.request(**_arguments(effect)))
        except httpx.TransportError as error:
            return _lost(error)


class AsyncClient(_Connection):
    """Asynchronous; safe for several tasks of one event loop. `transport` is httpx's."""

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
        self._http = httpx.AsyncClient(transport=transport, **self._options())
        self._streams = None if transport is None else self._http
        self._lock = asyncio.Lock()

    async def send(self, request: Request[T], policy: Policy | None = None) -> T:
        """Any request of `fastpubsub.client.requests`."""
        return await self._run(self._flow(request, policy))

    def publisher(self, limits: Limits | None = None) -> AsyncPublisher:
        """Gathers single messages into batches in the background; close it, or use `async with`."""
        return AsyncPublisher(self, limits or Limits())

    def messages(
        self, subscription_id: str, *, prefetch: int = 10, lease_seconds: int | None = None
    ) -> AsyncGenerator["Delivery", None]:
        """For ever: `async for delivery in bus.messages("billing"): async with delivery: ...`.

        Leases are extended while a message waits here and while its `async with` runs. Up to `prefetch` messages wait;
        they are given back when the loop ends.
        """
        from fastpubsub.client.iteration import iterate

        return iterate(self, subscription_id, prefetch, lease_seconds)

    def follow(
        self, topic_id: str, *, after: uuid.UUID | str | None = None, recent: int = 0
    ) -> AsyncGenerator["TopicMessage", None]:
        """For ever: everything that is published from now on, or after a message; nothing is leased or settled.

        Without `after` the `recent` messages (up to 1,000) that are there already come first. A connection that is lost
        is opened again and misses nothing that is still kept. Raises `NotFound` when the topic is gone.
        """
        from fastpubsub.client.following import follow

        return follow(self, topic_id, None if after is None else str(after), recent)

    @asynccontextmanager
    async def open(self, request: Request[None]) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer that does not end, as it comes; tried once. Silence is a lost connection."""
        if self._streams is None:
            self._streams = httpx.AsyncClient(**self._options() | {"limits": STREAMS})
        streams = self._streams
        opened: list[httpx.Response] = []

        async def send(effect: Send) -> Answer | Lost:
            arguments = _arguments(effect) | {"timeout": httpx.Timeout(effect.timeout, read=SILENCE_SECONDS)}
            response = await streams.send(streams.build_request(**arguments), stream=True)
            opened.append(response)
            content = b"" if response.is_success else await response.aread()
            return Answer(response.status_code, response.headers, content)

        try:
            await self._run(self._flow(request, Policy(attempts=1)), send)
            yield opened[-1].aiter_bytes()
        except httpx.TransportError as error:
            raise ConnectionFailed(_lost(error).reason) from None
        finally:
            for response in opened:
                await response.aclose()

    async def deliver(self, topic_id: str, batch: list[Entry[asyncio.Future[str]]]) -> None:
        """Publishes a batch and answers its futures."""
        await self._run(deliver(topic_id, batch, self._policy, self._tokens))

    async def close(self) -> None:
        await self._http.aclose()
        if self._streams is not None:
            await self._streams.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def _run(self, flow: Flow[T], send: Callable[[Send], Awaitable[Answer | Lost]] | None = None) -> T:
        result = None
        while True:
            try:
                effect = flow.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = await (send(effect) if send is not None and isinstance(effect, Send) else self._do(effect))

    async def _do(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Authorize):
            async with self._lock:
                return effect.tokens.current(effect.refused) or await self._run(effect.tokens.fetch(self._policy))
        try:
            return _answer(await self._http.request(**_arguments(effect)))
        except httpx.TransportError as error:
            return _lost(error)


def _arguments(effect: Send) -> dict[str, Any]:
    request = effect.request
    headers = dict(request.headers)
    if request.content is not None:
        headers["Content-Type"] = "application/json"
    if effect.token is not None:
        headers["Authorization"] = f"Bearer {effect.token}"
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "content": request.content,
        "headers": headers,
        "timeout": effect.timeout,
    }


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


def _answer_read(response: httpx.Response) -> Answer:
    response.read()
    return _answer(response)


def _lost(error: httpx.TransportError) -> Lost:
    return Lost(f"{type(error).__name__}: {error}".rstrip(": "), not isinstance(error, NEVER_SENT))
