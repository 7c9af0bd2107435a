"""Connects a FastAPI application to the bus.

bus = Bus("http://localhost:8000")
app = FastAPI(lifespan=bus.lifespan)

@app.post("/orders", status_code=202)
async def create_order(order: Order, publisher: BusPublisher) -> None:
    await publisher.publish("orders", order)
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any, TypeAlias, TypeVar

import httpx
from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection

from fastpubsub.client import AsyncClient, AsyncPublisher, Limits, Policy, Router, Topic, Worker
from fastpubsub.client.pulling import AGAIN
from fastpubsub.integrations.fastapi_dependencies import FastAPISolver

logger = logging.getLogger("fastpubsub.client")

StatefulLifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]
Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]] | StatefulLifespan

STATE = "fastpubsub"

DECLARE_SECONDS = 5.0
"""How long an application waits at its start for what it declares, before it goes on without."""


class Bus(Router):
    """A client, a publisher and, if there are subscribers, a worker: open as long as the application runs.

    Its subscribers run in this process, next to the requests. What they declare, and the given `topics`, is there when
    the application begins to answer, if the server is.

    `url`, `client_id`, `client_secret` and `policy` as for `AsyncClient`, `limits` for its publisher. With
    `subscribe=False` the subscribers do not run here: let `fastpubsub worker module:bus.worker` run them.

    Subscribers that stop, as for a subscription that does not exist, are started again after a pause that grows up to
    10 seconds; `restart=False` leaves them stopped.
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
        restart: bool = True,
        concurrency: int = 10,
        grace_seconds: float = 10.0,
        prefetch_seconds: float = 1.0,
        topics: Iterable[Topic[Any]] = (),
        declare: bool = True,
    ) -> None:
        super().__init__()
        self._address = (url, client_id, client_secret)
        self._policy = policy
        self._limits = limits
        self._subscribe = subscribe
        self._restart = restart
        self._transport: httpx.AsyncBaseTransport | None = None
        self._client: AsyncClient | None = None
        self._publisher: AsyncPublisher | None = None
        self.worker = BusWorker(
            self,
            *self._address,
            concurrency=concurrency,
            grace_seconds=grace_seconds,
            prefetch_seconds=prefetch_seconds,
            topics=topics,
            declare=declare,
        )
        self.worker.include_router(self)
        self.worker.on_answered = self._answered
        self.failure: Exception | None = None
        """Why the subscribers do not run, for a readiness probe; it is logged, too. None again once they do."""
        self._failures = 0
        self._stopping = asyncio.Event()

    @property
    def client(self) -> AsyncClient:
        return _opened(self._client)

    @property
    def publisher(self) -> AsyncPublisher:
        return _opened(self._publisher)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with self.connected() as client, self._subscribing(client, app):
            yield {STATE: self}

    def lifespan_with(self, inner: Lifespan) -> StatefulLifespan:
        """Combines the bus with an application's own lifespan, which runs inside, with the bus open.

        The subscribers start when yours has started, and stop before it ends.
        """

        @asynccontextmanager
        async def both(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
            async with self.connected() as client, inner(app) as state, self._subscribing(client, app, state):
                yield {STATE: self, **(state or {})}

        return both

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Bus"]:
        """Opens the bus outside of an application: in a script, or in your own lifespan."""
        async with self.connected() as client, self._subscribing(client):
            yield self

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncClient]:
        """Opens the client and the publisher; sends all published messages before they are closed."""
        async with (
            AsyncClient(*self._address, policy=self._policy, transport=self._transport) as self._client,
            self._client.publisher(self._limits) as self._publisher,
        ):
            yield self._client

    @asynccontextmanager
    async def _subscribing(
        self, client: AsyncClient, app: FastAPI | None = None, state: Mapping[str, Any] | None = None
    ) -> AsyncIterator[None]:
        self.worker.solver.application, self.worker.solver.state = app, {STATE: self, **(state or {})}
        self.failure, self._stopping = None, asyncio.Event()
        declared = await self._declare(client)
        runs = self._subscribe and bool(self.worker.subscriptions)
        serving = None if declared and not runs else asyncio.create_task(self._serve(client, runs=runs))
        try:
            yield
        finally:
            self._stopping.set()
            self.worker.stop()
            if serving is not None:
                await serving

    @contextmanager
    def override(self, transport: httpx.AsyncBaseTransport) -> Iterator[None]:
        """For tests: connects everything that is opened inside to `transport`, such as that of an `InMemoryBus`."""
        before, self._transport = self._transport, transport
        try:
            yield
        finally:
            self._transport = before

    async def _declare(self, client: AsyncClient) -> bool:
        """Before the first request, if the server is there: a route may publish to a topic that is declared."""
        with suppress(Exception):  # which is met again, and told, by what goes on in the background
            await asyncio.wait_for(self.worker.declare(client), DECLARE_SECONDS)
            return True
        return False

    async def _serve(self, client: AsyncClient, *, runs: bool) -> None:
        while not self._stopping.is_set():
            try:
                await (self.worker.serve(client) if runs else self.worker.declare(client))
            except Exception as error:  # noqa: BLE001 - whatever it is, the application must hear of it
                self._tell(error)
            else:
                if not runs:
                    self.failure = None
                    return
            if not self._restart:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), AGAIN.pause(self._failures, None))

    def _tell(self, error: Exception) -> None:
        """Logs a failure once, and again when it changes."""
        if self.failure is None or str(self.failure) != str(error):
            what = "are restarted until they run" if self._restart else "stay stopped"
            logger.error("the subscribers of this application have stopped and %s", what, exc_info=error)
        self.failure = error
        self._failures += 1

    def _answered(self) -> None:
        if self.failure is not None and self.worker.is_answered:
            self.failure, self._failures = None, 0
            logger.info("the subscribers of this application run again")


class BusWorker(Worker):
    """The subscribers of a bus. `fastpubsub worker module:bus.worker` runs them without the application."""

    solver: FastAPISolver

    def __init__(self, bus: Bus, *address: str | None, **settings: Any) -> None:
        super().__init__(*address, **settings)
        self._bus = bus
        self.solver = FastAPISolver({STATE: bus})

    async def serve(self, client: AsyncClient | None = None) -> None:
        if client is not None:
            await super().serve(client)
            return
        async with self._bus.connected() as opened:
            await super().serve(opened)


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
