"""The bus inside a FastAPI application.

bus = Bus("http://localhost:8000")
app = FastAPI(lifespan=bus.lifespan)

@app.post("/orders", status_code=202)
async def create_order(order: Order, publisher: BusPublisher) -> None:
    await publisher.publish("orders", order)
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeAlias, TypeVar

import httpx
from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection

from fastpubsub.client import AsyncClient, AsyncPublisher, Limits, Policy, Worker

logger = logging.getLogger("fastpubsub.client")

Function = TypeVar("Function", bound=Callable[..., Any])
StatefulLifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]
Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]] | StatefulLifespan

STATE = "fastpubsub"


class Bus:
    """A client, a publisher and, if there are subscribers, a worker: open as long as the application runs.

    `url`, `client_id`, `client_secret` and `policy` as for `AsyncClient`, `limits` for its publisher. With
    `subscribe=False` the subscribers do not run here: let `fastpubsub worker module:bus.worker` run them.
    """

    def __init__(
        self,
        url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        *,
        policy: Policy | None = None,
        limits: Limits | None = None,
        subscribe: bool = True,
        concurrency: int = 10,
        grace_seconds: float = 10.0,
    ) -> None:
        self._address = (url, client_id, client_secret)
        self._policy = policy
        self._limits = limits
        self._subscribe = subscribe
        self._transport: httpx.AsyncBaseTransport | None = None
        self._client: AsyncClient | None = None
        self._publisher: AsyncPublisher | None = None
        self.worker = Worker(url, client_id, client_secret, concurrency=concurrency, grace_seconds=grace_seconds)
        self.failure: BaseException | None = None
        """Why the subscribers have stopped, for a readiness probe; it is logged, too."""

    @property
    def client(self) -> AsyncClient:
        return _opened(self._client)

    @property
    def publisher(self) -> AsyncPublisher:
        return _opened(self._publisher)

    def subscriber(
        self, subscription_id: str, *, concurrency: int | None = None, lease_seconds: int | None = None
    ) -> Callable[[Function], Function]:
        """As of a `Worker`; runs in this process, next to the requests."""
        return self.worker.subscriber(subscription_id, concurrency=concurrency, lease_seconds=lease_seconds)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with self.opened():
            yield {STATE: self}

    def lifespan_with(self, inner: Lifespan) -> StatefulLifespan:
        """For an application that has a lifespan of its own: it runs inside, with the bus open."""

        @asynccontextmanager
        async def both(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
            async with self.opened(), inner(app) as state:
                yield {STATE: self, **(state or {})}

        return both

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Bus"]:
        """Outside of an application: in a script, or a lifespan that you write yourself."""
        async with (
            AsyncClient(*self._address, policy=self._policy, transport=self._transport) as self._client,
            self._client.publisher(self._limits) as self._publisher,
        ):
            subscribing = self._start(self._client)
            try:
                yield self
            finally:
                self.worker.stop()
                if subscribing is not None:
                    await subscribing
                # What was published by then is sent before the publisher and the client are closed.

    @contextmanager
    def override(self, transport: httpx.AsyncBaseTransport) -> Iterator[None]:
        """For tests: everything that is opened inside goes there, as to the transport of an `InMemoryBus`."""
        before, self._transport = self._transport, transport
        try:
            yield
        finally:
            self._transport = before

    def _start(self, client: AsyncClient) -> asyncio.Task[None] | None:
        if not self._subscribe or not self.worker.subscriptions:
            return None
        return asyncio.create_task(self._serve(client))

    async def _serve(self, client: AsyncClient) -> None:
        self.failure = None
        try:
            await self.worker.serve(client)
        except Exception as error:
            self.failure = error
            logger.exception("the subscribers of this application have stopped")


Opened = TypeVar("Opened")


def _opened(value: Opened | None) -> Opened:
    if value is None:
        raise RuntimeError("the bus is not open yet: make the application with FastAPI(lifespan=bus.lifespan)")
    return value


def _bus(connection: HTTPConnection) -> Bus:
    bus: Bus | None = getattr(connection.state, STATE, None)
    return _opened(bus)


def _client(bus: Annotated[Bus, Depends(_bus)]) -> AsyncClient:
    return bus.client


def _publisher(bus: Annotated[Bus, Depends(_bus)]) -> AsyncPublisher:
    return bus.publisher


BusClient: TypeAlias = Annotated[AsyncClient, Depends(_client)]
"""Annotate an argument of a route with it to get the client of the application's bus."""

BusPublisher: TypeAlias = Annotated[AsyncPublisher, Depends(_publisher)]
"""The same for its publisher, which gathers what many requests publish into batches."""
