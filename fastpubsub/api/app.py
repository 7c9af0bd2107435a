"""The application: everything that runs is built here and passed down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from fastpubsub import __version__
from fastpubsub.api import console, description, docs, entrance, errors, guide
from fastpubsub.api.bodies import LargeBodies
from fastpubsub.api.browsers import Browsers
from fastpubsub.api.direct import DirectRoutes
from fastpubsub.api.events import logged_events
from fastpubsub.api.middleware import RequestMiddleware
from fastpubsub.api.probes import Probes
from fastpubsub.api.prometheus import RequestMetrics, make_registry
from fastpubsub.api.request_log import RequestLog
from fastpubsub.api.routers import (
    audit,
    browsing,
    clients,
    consumers,
    delayed,
    explaining,
    filter_tests,
    history,
    messages,
    monitoring,
    oauth,
    overview,
    push,
    redrives,
    refused,
    schedules,
    subscriptions,
    topics,
    transactions,
)
from fastpubsub.api.sockets import Sockets
from fastpubsub.api.streams import Streams
from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.opening import open_database
from fastpubsub.exceptions import FastpubsubError
from fastpubsub.logs import style_of
from fastpubsub.push.dispatcher import Dispatcher
from fastpubsub.push.trials import Trials
from fastpubsub.services.authenticator import Authenticator
from fastpubsub.services.claiming import Claiming
from fastpubsub.services.consumers import Consumers
from fastpubsub.services.deliveries import Deliveries
from fastpubsub.services.directory import Directory
from fastpubsub.services.due import DueMessages
from fastpubsub.services.exchanging import Exchanging
from fastpubsub.services.expiry import Uses
from fastpubsub.services.firing import Schedulers
from fastpubsub.services.history import LAST_WRITE_SECONDS, Recorder
from fastpubsub.services.maintenance import Maintenance
from fastpubsub.services.publishing import Publishing
from fastpubsub.services.redrives import Redrives
from fastpubsub.services.refused import RefusedMessages
from fastpubsub.services.relay import Relay
from fastpubsub.services.schedules import Schedules
from fastpubsub.services.settling import Settling
from fastpubsub.services.tails import Tails
from fastpubsub.services.transactions import Transactions
from fastpubsub.services.turn import Turn
from fastpubsub.services.wakeups import Wakeups
from fastpubsub.tracing import tracing

DESCRIPTION = """Publish/subscribe over HTTP on nothing but PostgreSQL.

Create a topic and a subscription, publish, pull, ack."""


class Application(FastAPI):
    """FastAPI, with what goes around every request outside of FastAPI's own layers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Skips the check for telemetry that FastAPI makes at every request; nobody sets it up here."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        direct = DirectRoutes(super().build_middleware_stack(), [*topics.router.routes, *messages.router.routes])
        state = self.state
        log = RequestLog(is_on=state.settings.log_requests, real_paths=style_of(state.settings) == "terminal")
        app = RequestMiddleware(direct, Sockets(self), state.browsers, state.request_metrics, log)
        if state.settings.traces_enabled:
            from fastpubsub.api.traced import TracedRequests

            return TracedRequests(app)
        return app


ROUTERS = [
    topics.router,
    subscriptions.router,
    push.router,
    messages.router,
    transactions.router,
    browsing.router,
    delayed.router,
    refused.router,
    schedules.router,
    filter_tests.router,
    redrives.router,
    overview.router,
    history.router,
    consumers.router,
    explaining.router,
    clients.router,
    audit.router,
    oauth.router,
    oauth.well_known,
    monitoring.router,
    entrance.router,
]


def optional_routers(settings: Settings) -> list[APIRouter]:
    pages = [
        (settings.api_docs_enabled, docs.router),
        (settings.api_docs_enabled, guide.router),
        (settings.console_enabled, console.router),
    ]
    return [router for is_enabled, router in pages if is_enabled]


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
        openapi_tags=description.TAGS,
    )
    app.state.settings = settings
    app.state.browsers = Browsers(settings)
    app.state.stopping = asyncio.Event()
    app.state.registry = registry = make_registry()
    app.state.request_metrics = RequestMetrics(registry)
    app.state.counters = Counters(registry, settings.metrics_max_subscriptions)
    errors.install(app)
    # As they were made on import: FastAPI's include_router would prepare each anew, at its first request.
    for router in [*ROUTERS, *optional_routers(settings)]:
        app.router.routes += router.routes
    description.describe(app)
    return app


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    with tracing(state.settings):
        build(state)
        jobs = [asyncio.create_task(job) for job in background(state)]
        try:
            yield
        finally:
            state.stopping.set()
            await stop(state, jobs)


def build(state: State) -> None:
    """What needs the event loop: connections, coalescers, what runs in the background."""
    settings, counters = state.settings, state.counters
    state.database = database = open_database(settings)
    state.authenticator = Authenticator(settings, database)
    state.directory = Directory(database)
    state.wakeups = wakeups = Wakeups(database, settings)
    shared = (database, state.directory, settings, counters, wakeups)
    state.publishing = Publishing(*shared)
    state.claiming = Claiming(*shared)
    state.settling = Settling(*shared)
    state.exchanging = Exchanging(*shared, state.claiming, state.settling)
    state.dispatcher = Dispatcher(
        database, settings, state.claiming, state.settling, counters, wakeups, settings.push_max_per_second
    )
    state.trials = Trials(database, state.directory, settings, state.dispatcher)
    state.transactions = Transactions(database, state.directory, state.settling)
    state.consumers = Consumers(database, state.directory, wakeups.lines)
    state.uses = Uses(database, state.claiming, wakeups.lines)
    state.deliveries = Deliveries(database, state.claiming, state.settling, state.consumers)
    state.tails = Tails(database, state.directory, wakeups, settings, logged_events)
    state.streams = Streams(settings, state.authenticator, counters)
    state.probes = Probes(settings, database, state.registry)
    state.large_bodies = LargeBodies()
    state.recorder = Recorder(database, counters)
    state.turn = turn = Turn(database, settings)
    state.maintenance = Maintenance(database, settings, counters, wakeups, turn)
    state.redrives = Redrives(database, wakeups, turn)
    state.refused = RefusedMessages(database, state.directory, settings.pull_max_bytes)
    state.schedules = Schedules(database, state.directory, counters, wakeups)
    state.schedulers = schedulers = Schedulers(database, settings, counters, wakeups)
    state.due_messages = DueMessages(
        database, settings, counters, turn, on_published=wakeups.published, on_schedules=schedulers.look
    )
    state.relay = Relay(database, settings, counters, turn, on_relayed=wakeups.published, on_settled=wakeups.changed)


def background(state: State) -> list[Coroutine[Any, Any, None]]:
    running = (
        state.turn,
        state.maintenance,
        state.redrives,
        state.relay,
        state.dispatcher,
        state.due_messages,
        state.schedulers,
        state.recorder,
        state.consumers,
        state.uses,
        state.wakeups,
        state.streams,
    )
    return [*(one.run() for one in running), end_waiting(state)]


async def stop(state: State, jobs: list[asyncio.Task[None]]) -> None:
    """Finishes what was accepted, and closes the connections last."""
    await state.dispatcher.close()
    await state.tails.close()
    await state.deliveries.close()
    await finish(state)
    for job in jobs:
        job.cancel()
    await asyncio.wait(jobs)
    await finish(state)
    with contextlib.suppress(FastpubsubError, TimeoutError):
        async with asyncio.timeout(LAST_WRITE_SECONDS):
            await state.turn.give_up()
            await state.recorder.write()
            await state.consumers.write()
            await state.uses.write()
    await state.probes.close()
    state.large_bodies.close()
    state.authenticator.close()
    await state.database.close()


async def finish(state: State) -> None:
    """Finishes the accepted requests."""
    for service in (state.publishing, state.exchanging, state.claiming, state.settling):
        await service.close()


async def end_waiting(state: State) -> None:
    """Lets waiting requests answer as soon as the server is told to stop."""
    await state.stopping.wait()
    state.wakeups.lines.end()
    state.streams.stop()
