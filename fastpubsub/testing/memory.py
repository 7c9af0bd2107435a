"""A bus without a server: the clients and workers are the real ones, only what is behind the wire is in memory."""

import asyncio
import json
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from fastpubsub.client import AsyncClient, Client, Policy, Worker
from fastpubsub.testing.pushing import pushing
from fastpubsub.testing.server import MemoryServer
from fastpubsub.testing.store.store import Store

DRAIN_SECONDS = 30.0
NOTHING = b'{"data":[]'
"""How an answer without messages begins."""

PAUSED = NOTHING + b',"paused":true'


class InMemoryBus:
    """A bus in memory; its data ends with it.

    Backoffs, delays and ack deadlines pass by `advance` alone; a call takes a microsecond. Clients, scopes, streams
    and retention are left out.
    """

    def __init__(self) -> None:
        self._store = Store()
        self._server = MemoryServer(self._store)
        self._lock = threading.RLock()
        self._waiting: set[Callable[[], None]] = set()
        self.transport = MemoryTransport(self)

    def client(self) -> Client:
        return Client("http://memory", transport=self.transport, policy=Policy(attempts=1))

    def async_client(self) -> AsyncClient:
        return AsyncClient("http://memory", transport=self.transport, policy=Policy(attempts=1))

    def subscription(self, id: str, topic_id: str, **settings: Any) -> None:  # noqa: A002 - the name of the API
        """Creates the topic and the subscription unless they exist; `settings` are those of `create_subscription`."""
        with self.client() as client:
            client.create_topic(topic_id, exist_ok=True)
            client.create_subscription(id, topic_id, exist_ok=True, **settings)

    async def declare(self, worker: Worker) -> None:
        """Creates what the subscribers of a worker declare; `drain`, and the bus of an application, do this, too."""
        async with self.async_client() as client:
            await worker.declare(client)

    def published(self, topic_id: str) -> list[dict[str, Any]]:
        """Returns all payloads of a topic, in order."""
        with self._lock:
            return [json.loads(message.payload) for message in self._store.log(topic_id).messages.values()]

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        with self._lock:
            waiting = {path.removeprefix("/subscriptions/") for path, _, _ in self._server.waiting}
            self._store.advance(seconds, waiting)
            self._wake()

    async def drain(self, worker: Worker) -> None:
        """Runs a worker until it has nothing left to do now.

        Messages that wait for a retry need `advance`, and another `drain`.
        """
        async with self.async_client() as client, asyncio.timeout(DRAIN_SECONDS):
            changed = _AsyncSignal(self)
            task = asyncio.create_task(worker.serve(client))
            task.add_done_callback(lambda _: changed.wake())
            await asyncio.sleep(0)  # what has not begun cannot be stopped
            try:
                while not task.done() and not self._is_idle(worker.subscriptions):
                    await changed.wait(DRAIN_SECONDS)
            finally:
                changed.close()
                worker.stop()
                await task

    async def push(
        self, subscription_id: str, app: Any, path: str, *, secret: str, reject_on: Collection[int] = ()
    ) -> None:
        """Posts what is ready to an ASGI application until nothing is, signed, in the format `standard` of a server.

        The status of each answer settles its message: 2xx acknowledges, one of `reject_on` makes a dead letter, and
        after any other one the message waits for a retry.
        """
        await self.drain(pushing(subscription_id, app, path, secret, reject_on))

    def answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            response = self._server.answer(request)
            if request.method != "GET":
                self._wake()
            return response

    def times_left(self, request: httpx.Request) -> int:
        with self._lock:
            path = request.url.path.rpartition("/")[0]
            return self._server.left[path, request.url.params.get("consumer_id", "")]

    @contextmanager
    def waits(self, request: httpx.Request) -> Iterator[None]:
        """Lets `list_consumers` show the pull."""
        with self._lock:
            path = request.url.path.rpartition("/")[0]
            wait = (path, request.url.params.get("consumer_id", ""), self._store.now)
            self._server.waiting.append(wait)
        try:
            yield
        finally:
            with self._lock:
                self._server.waiting.remove(wait)

    def when_changed(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.add(wake)

    def forget(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.discard(wake)

    def _wake(self) -> None:
        for wake in self._waiting:
            wake()

    def _is_idle(self, subscriptions: list[str]) -> bool:
        with self._lock:
            cursors = [self._store.cursors[id_] for id_ in subscriptions if id_ in self._store.cursors]
            now = self._store.now
            return len(cursors) == len(subscriptions) and not any(
                cursor.leases or (not cursor.is_paused and cursor.room(now) and cursor.is_ready(now))
                for cursor in cursors
            )


class MemoryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The transport of your own clients: `Client(transport=bus.transport)`."""

    is_in_memory = True

    def __init__(self, bus: InMemoryBus) -> None:
        self._bus = bus

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        changed = threading.Event()
        self._bus.when_changed(changed.set)
        try:
            left = self._bus.times_left(request)
            response = self._bus.answer(request)
            while (
                _is_to_wait(request, response)
                and left == self._bus.times_left(request)
                and self._is_changed(changed, request)
            ):
                changed.clear()
                before, response = response, _later(response, self._bus.answer(_pull(request)))
                if _is_paused(response) and not _is_paused(before):
                    break
            return response
        finally:
            self._bus.forget(changed.set)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        await asyncio.sleep(0)  # others get their turn, as while a server is asked
        changed = _AsyncSignal(self._bus)
        try:
            left = self._bus.times_left(request)
            response = self._bus.answer(request)
            while (
                _is_to_wait(request, response)
                and left == self._bus.times_left(request)
                and await self._is_changed_later(changed, request)
            ):
                before, response = response, _later(response, self._bus.answer(_pull(request)))
                if _is_paused(response) and not _is_paused(before):
                    break
            return response
        finally:
            changed.close()

    def _is_changed(self, changed: threading.Event, request: httpx.Request) -> bool:
        with self._bus.waits(request):
            return changed.wait(_seconds(request))

    async def _is_changed_later(self, changed: "_AsyncSignal", request: httpx.Request) -> bool:
        with self._bus.waits(request):
            return await changed.wait(_seconds(request))


class _AsyncSignal:
    """Set from any thread."""

    def __init__(self, bus: InMemoryBus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        bus.when_changed(self.wake)

    def close(self) -> None:
        self._bus.forget(self.wake)

    async def wait(self, seconds: float) -> bool:
        """Returns whether something changed since the last call."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        was_set = self._event.is_set()
        self._event.clear()
        return was_set

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._event.set)


def _seconds(request: httpx.Request) -> float:
    return float(request.url.params.get("wait_seconds", 0))


def _is_to_wait(request: httpx.Request, response: httpx.Response) -> bool:
    return _seconds(request) > 0 and response.content.startswith(NOTHING)


def _is_paused(response: httpx.Response) -> bool:
    return response.content.startswith(PAUSED)


def _pull(request: httpx.Request) -> httpx.Request:
    """What is asked again: what was settled is so."""
    path = request.url.path.removesuffix("/pulls")
    return request if path == request.url.path else httpx.Request("GET", request.url.copy_with(path=f"{path}/messages"))


def _later(first: httpx.Response, later: httpx.Response) -> httpx.Response:
    """What is there now, with what became of the ids."""
    if later.status_code != first.status_code:
        return later
    content = later.content[:-1] + first.content.removeprefix(PAUSED).removeprefix(NOTHING)
    return httpx.Response(later.status_code, headers={"Content-Type": "application/json"}, content=content)
