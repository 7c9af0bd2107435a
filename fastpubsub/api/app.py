"""The application: everything that runs is built here and passed down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from fastpubsub import __version__
from fastpubsub.api import docs, errors
from fastpubsub.api.direct import DirectRoutes
from fastpubsub.api.events import logged_events
from fastpubsub.api.middleware import RequestMiddleware
from fastpubsub.api.probes import Probes
from fastpubsub.api.prometheus import RequestMetrics, make_registry
from fastpubsub.api.routers import clients, messages, monitoring, oauth, subscriptions, topics
from fastpubsub.api.security import describe_security
from fastpubsub.api.sockets import Sockets
from fastpubsub.api.streams import Streams
from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database import Database
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.deliveries import Deliveries
from fastpubsub.services.directory import Directory
from fastpubsub.services.maintenance import Maintenance
from fastpubsub.services.messages import Messages
from fastpubsub.services.relay import Relay
from fastpubsub.services.tails import Tails
from fastpubsub.services.waiting import Consumers
from fastpubsub.services.wakeups import Wakeups

DESCRIPTION = """Publish/subscribe over HTTP on nothing but PostgreSQL.

Create a topic and a subscription, publish, pull, ack."""


class Application(FastAPI):
    """FastAPI, with what goes around every request outside of FastAPI's own layers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Without FastAPI's look, at every request, for a telemetry that nobody sets up here."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        direct = DirectRoutes(super().build_middleware_stack(), [*topics.router.routes, *messages.router.routes])
        state = self.state
        return RequestMiddleware(direct, state.request_metrics, state.settings.log_requests, Sockets(self))


ROUTERS = [
    topics.router,
    subscriptions.router,
    messages.router,
    clients.router,
    oauth.router,
    oauth.well_known,
    monitoring.router,
]


def create_app(settings: Settings) -> FastAPI:
    app = Application(
        title="fastpubsub",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        responses=errors.DOCUMENTED,
    )
    app.state.settings = settings
    app.state.stopping = asyncio.Event()
    app.state.registry = registry = make_registry()
    app.state.request_metrics = RequestMetrics(registry)
    app.state.counters = Counters(registry, settings.metrics_max_subscriptions)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    if settings.api_docs_enabled:
        app.include_router(docs.router)
    describe_security(app)
    return app


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What needs the event loop: connections, coalescers, the background."""
    state = app.state
    settings = state.settings
    state.database = database = Database(settings)
    state.authenticator = Authenticator(settings, database)
    state.directory = Directory(database)
    state.wakeups = wakeups = Wakeups(database, settings)
    state.messages = Messages(database, state.directory, settings, state.counters, wakeups)
    state.consumers = Consumers(state.messages, state.directory, wakeups, state.counters)
    state.deliveries = Deliveries(database, state.messages, state.consumers)
    state.tails = Tails(database, state.directory, wakeups, settings, logged_events)
    state.streams = Streams(settings, state.authenticator, state.counters)
    state.probes = Probes(settings, database, state.registry)
    maintenance = Maintenance(database, settings, state.counters, wakeups)
    relay = Relay(database, settings, state.counters, on_relayed=wakeups.published)
    jobs = (maintenance.run(), relay.run(), wakeups.run(), state.streams.run(), end_waiting(state))
    background = {asyncio.create_task(job) for job in jobs}
    try:
        yield
    finally:
        state.stopping.set()
        await state.tails.close()
        await state.deliveries.close()
        await state.messages.close()
        for job in background:
            job.cancel()
        await asyncio.wait(background)
        await state.messages.close()
        await state.probes.close()
        state.authenticator.close()
        await database.close()


async def end_waiting(state: State) -> None:
    """What waits answers as soon as the server is told to stop."""
    await state.stopping.wait()
    state.wakeups.lines.end()
    state.streams.stop()
